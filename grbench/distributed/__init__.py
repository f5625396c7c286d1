"""One cell on several devices: its processes, what they exchange, and tables that are divided among them by rows."""
