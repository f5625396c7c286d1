"""What is kept of a cell: its identity, its record, and every user's list."""
