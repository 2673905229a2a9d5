"""The command for readers of what lies in clear: a collection as a Parquet file, without who is being closed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fangxin.flows.cli.console import answer, say
from fangxin.flows.cli.desk import at_home, read_code


def read(
    home: Path, catalog: Path | None, address: str, out: Path, fields: Sequence[str], account: str | None,
    now: str | None, *, as_json: bool,
) -> int:  # fmt: skip
    """Write the rows that may be read; NotAllowed, with 403 or 410, for an account that may not."""
    from fangxin.flows.readers import write

    with at_home(home, catalog, now, alone=False) as desk:
        kept = write(desk, address, fields, out, account=None if account is None else read_code(account))
    document = {"collection": address, "out": str(out), "rows": kept.rows, "kept_back": kept.kept_back}

    def words() -> None:
        say(f"{address}: {kept.rows} rows to {out}, {kept.kept_back} kept back")

    answer(document, as_json=as_json, words=words)
    return 0
