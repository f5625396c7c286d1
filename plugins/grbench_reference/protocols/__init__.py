"""Evaluation protocols: which users are evaluated, what is held out, and which candidates are ranked."""
