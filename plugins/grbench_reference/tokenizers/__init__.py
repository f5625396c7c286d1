"""Tokenizers: each assigns a code, a semantic ID or the item itself, to every item."""
