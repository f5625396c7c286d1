"""The memory-mapped store, its split into training data and queries, and the batches read from them."""
