"""The commands `grbench data` and `grbench inspect codes`."""
