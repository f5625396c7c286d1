"""Metrics: each gives one value a query."""
