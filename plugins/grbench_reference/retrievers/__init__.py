"""Retrievers: each finds the best candidates for a history."""
