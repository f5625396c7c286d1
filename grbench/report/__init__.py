"""Tables from records: pure functions, and their text or picture."""
