"""Datasets: each reads a source and writes it into a store."""
