"""Files of ranked lists: reading those that were made elsewhere, checking them against a split, and writing them."""
