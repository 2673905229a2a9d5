"""What is held: the catalog, the stores, the keys, and the bytes on the medium."""
