"""Whoever scans from a terminal sees how far it is; whoever reads the answer by program sees nothing of it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("json", [False, True])
def test_a_bar_with_bytes_shows_on_a_terminal_and_never_in_the_answer(json: bool, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (8 << 20) + b" 13912345678 ")
    (tmp_path / "who").write_text("13912345678\n")
    main, terminal = pty.openpty()
    start = "from fangxin.flows.cli.main import run; run()"
    command = [sys.executable, "-c", start, "scan", str(tmp_path / "big")]
    command += ["--identity", f"phone_number=@{tmp_path / 'who'}", *(["--json"] if json else [])]
    environment = os.environ | {"TERM": "xterm", "FANGXIN_HOME": str(tmp_path / "home"), "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        try:
            while more := os.read(main, 4096):
                shown += more
        except OSError:
            pass  # the other end of the terminal is closed
        os.close(main)
        answer = process.stdout.read().decode() if process.stdout else ""
    assert process.returncode == 1
    assert ("MB" in shown.decode()) is not json
    assert "13912345678" not in shown.decode() + answer
    assert answer.startswith("{") is json
