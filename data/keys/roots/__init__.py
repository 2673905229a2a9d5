"""Root holders: where the one secret lives on which every key hangs."""
