"""Optimizers: each gives the torch optimizers that update a module."""
