"""Slices: each divides the evaluated users into groups. A query with several targets goes by its first one."""
