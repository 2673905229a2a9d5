"""LeCard: the sample estate, deterministic for a seed."""
