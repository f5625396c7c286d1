"""Encoders: histories in, vectors or code logits out."""
