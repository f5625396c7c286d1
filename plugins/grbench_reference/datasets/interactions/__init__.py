"""Interaction logs of other datasets, in the formats in which they are published."""
