"""What every child of a fork would import for itself, six seconds of it, is imported before."""

from __future__ import annotations

from importlib import import_module


def before_forks() -> None:
    """Import what a whole run needs."""
    for name in ("great_expectations", "pyhanko.sign", "typst"):
        import_module(name)
