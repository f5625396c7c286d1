"""Retrievers: each finds the k best candidates for a history."""
