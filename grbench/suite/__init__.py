"""The YAML suite: its file, grids, methods, and the cells that they become."""
