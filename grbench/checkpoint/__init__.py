"""Saving a stage of training and loading it again."""
