"""One file per kind of store; none knows another."""
