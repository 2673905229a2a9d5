"""What every child of a fork would import for itself, six seconds of it, is imported before."""

from __future__ import annotations

from importlib import import_module

from fangxin.checks.suites.judgement import great_expectations


def before_forks() -> None:
    """Import what a whole run needs."""
    great_expectations()
    for name in ("pyhanko.sign", "typst"):
        import_module(name)
