"""Tokenizers: each gives every item its code."""
