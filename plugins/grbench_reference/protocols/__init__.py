"""Protocols: who is evaluated, what of them is visible, and which candidates are ranked."""
