"""The command line of contract: one file per group of commands."""
