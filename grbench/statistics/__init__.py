"""Intervals and tests over users and seeds."""
