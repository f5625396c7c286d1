"""Metrics: each gives one value per query."""
