"""Ranking: every query's list from a trained encoder, and the metrics' values of it."""
