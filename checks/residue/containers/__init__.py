"""What opens bytes that lie in other bytes: one file per family of containers, and their registry."""
