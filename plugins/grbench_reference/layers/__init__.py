"""Layers that encoders share: transformer blocks, cached decoding, token packing, mixture of experts."""
