"""Synthetic data in the layout of the release."""
