"""Result tables, computed from records and formatted as text or a picture."""
