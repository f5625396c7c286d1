"""Tuning: the search for a method's best options, by Optuna, on validation scores only."""
