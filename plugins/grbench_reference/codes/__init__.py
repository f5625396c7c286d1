"""What tokenizers and decoders do with tables of codes: the prefix trie, collisions, quality."""
