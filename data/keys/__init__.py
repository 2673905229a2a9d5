"""The key vault, values under a subject key, and how a key dies for good."""
