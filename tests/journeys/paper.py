"""A test's home prints certificates on request: a PDF costs a third of a second, and few tests read one."""

from __future__ import annotations

from pathlib import Path


def on_request(home: Path) -> None:
    """Change the home's settings; the default is to print each certificate at its issue."""
    settings = home / "fangxin.toml"
    text = settings.read_text("utf-8")
    assert 'paper = "issue"' in text
    settings.write_text(text.replace('paper = "issue"', 'paper = "request"'), "utf-8")
