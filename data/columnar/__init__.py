"""Columnar files at byte level: the map of a Parquet file."""
