"""Losses: each picks, masks and chunks its own negatives."""
