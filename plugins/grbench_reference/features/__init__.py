"""How items, users and events become vectors: tables, fusion, times, popularity, semantic IDs."""
