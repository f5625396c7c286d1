"""Trackers: each records what happens while a cell runs."""
