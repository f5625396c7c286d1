"""The columnar, memory-mapped store, the splits made from it, and the batches read from them."""
