"""Migrations of the closures store, one file a step."""
