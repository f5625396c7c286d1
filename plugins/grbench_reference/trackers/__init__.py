"""Trackers: each is told what happens while a cell runs."""
