"""What is wrong with a home's `consumers.toml` is said before anybody is told anything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fangxin.data.errors import InputError
from fangxin.flows.consumers import load

GOOD = '[events]\nurl = "https://events.example.com/x"\nsecret_file = "secret"\n'
WRONG = {
    "no TOML": ("[events", "not TOML"),
    "no table": ('events = "x"', "expected a table"),
    "a key missing": ('[events]\nurl = "https://a.example"', "missing key secret_file"),
    "a key too many": (GOOD + "retries = 3", "unknown key retries"),
    "no patience": (GOOD + "timeout = 0", "timeout: expected seconds"),
    "in clear": (GOOD.replace("https", "http"), "is https"),
    "on this machine, in earnest": (GOOD.replace("https://events.example.com", "http://127.0.0.1"), "is https"),
    "no secret": (GOOD.replace('"secret"', '"other"'), "cannot be read"),
    "a short secret": (GOOD.replace('"secret"', '"short"'), "24 to 64 bytes"),
    "nobody whom the catalog knows": (GOOD.replace("events", "strangers"), "no dataset"),
}


def read(folder: Path, text: str, *, rehearsal: bool = False) -> Any:  # Any: consumers by name
    (folder / "consumers.toml").write_text(text, "utf-8")
    (folder / "secret").write_text("whsec_" + "QUJD" * 8, "utf-8")
    (folder / "short").write_text("whsec_QUJD", "utf-8")
    dataset = SimpleNamespace(accountable=SimpleNamespace(processors=("events",)))
    catalog: Any = SimpleNamespace(datasets=[dataset])
    return load(folder / "consumers.toml", lambda: catalog, rehearsal=rehearsal)


@pytest.mark.parametrize("name", WRONG)
def test_a_consumer_that_could_not_be_told_is_refused(tmp_path: Path, name: str) -> None:
    text, said = WRONG[name]
    with pytest.raises(InputError, match=said):
        read(tmp_path, text)


def test_a_consumer_is_known_by_its_name_and_its_secret_never_shows(tmp_path: Path) -> None:
    (found,) = read(tmp_path, GOOD).values()
    assert (found.name, found.timeout) == ("events", 20.0)
    assert "QUJD" not in repr(found)
    assert "ABC" not in repr(found)
    assert read(tmp_path, GOOD.replace("https://events.example.com", "http://127.0.0.1"), rehearsal=True)
    (tmp_path / "consumers.toml").unlink()
    assert load(tmp_path / "consumers.toml", lambda: pytest.fail("no catalog is read"), rehearsal=False) == {}
