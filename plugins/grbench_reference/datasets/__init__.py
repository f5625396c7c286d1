"""Dataset layouts: each reads one form of files and pours it into a store."""
