"""Tools for tables of codes, for tokenizers and decoders: prefix trie, item vectors, collisions, quality, random-k."""
