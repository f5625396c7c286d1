"""Ranking the candidates for all queries with a trained encoder, and computing metrics of the rankings."""
