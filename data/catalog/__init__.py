"""The catalog: what is held, whose it is, and what a law says about it."""
