"""The commands `grbench data` and `grbench codes`."""
