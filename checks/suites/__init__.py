"""Great Expectations over tables of findings, never over identities."""
