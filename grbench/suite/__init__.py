"""Reading a YAML suite: the file, grids, methods, and the cells (method x seed) that they expand to."""
