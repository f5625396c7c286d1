"""Downloading a release from the hub."""
