"""Trainers: each says how a batch becomes updates of the model."""
