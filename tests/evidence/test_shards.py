"""A ledger ends and another one goes on from it: nothing in flight, both kept, and a stranger sees that they join."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from evidence.many_home import make_many
from evidence.small_home import NOW, entry, sha

from fangxin.checks import verify
from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys.tree import KeyTree
from fangxin.flows import shards
from fangxin.flows.estate import open_estate
from fangxin.flows.gather import by_period, write
from fangxin.reports.ledger.log import Ledger

NEXT = "ledger.example.com/erasure/2027"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = make_many(tmp_path / "home", people=2)
    shutil.rmtree(made / "keys-of-vault", ignore_errors=True)
    with KeyTree.create(made / "keys", capacity=100):
        return made


def row(path: Path, trust: Path, since: Path) -> tuple[str, str]:
    found = {one.name: one for one in verify.verify(path, trust=trust, since=since)}
    return found["shards"].result, found["shards"].reason


def test_a_new_shard_goes_on_from_the_old_one_and_an_auditor_sees_both(home: Path, tmp_path: Path) -> None:
    old = open_estate(home)
    write(old, tmp_path / "old.zip", by_period(old, "2026"))
    shutil.copytree(home / "keys", tmp_path / "old-keys")
    last, size = tmp_path / "last", old.ledger.size
    last.write_bytes(old.ledger.checkpoint())
    (tmp_path / "early").write_bytes(_earlier(old.ledger))
    with pytest.raises(InputError, match="one tree and one key"):
        shards.start_shard(old, old.ledger.origin)
    shards.start_shard(open_estate(home), NEXT)

    estate = open_estate(home)
    assert (estate.settings.origin, estate.ledger.origin, estate.ledger.size) == (NEXT, NEXT, 2)
    away = shards.place_of(home, "ledger.example.com/erasure/2026")
    assert (away / "ledger" / "checkpoint").read_bytes() == last.read_bytes() == (away / "head").read_bytes()
    estate.ledger.append([entry("law.loaded", digest=sha("law"), law="cn"), entry("code.loaded", digest=sha("wheel"))])
    write(estate, tmp_path / "new.zip", [])
    trust = home / "keys"
    assert row(tmp_path / "new.zip", trust, last)[0] == verify.MISSING, "the old key has to come from outside as well"
    shutil.copy(tmp_path / "old-keys" / "log.vkey", trust / "shards.vkeys")
    assert row(tmp_path / "new.zip", trust, last) == (
        verify.HOLDS,
        f"goes on from ledger.example.com/erasure/2026, which ended at {size} entries, as your checkpoint says",
    )
    assert row(tmp_path / "new.zip", trust, tmp_path / "early")[0] == verify.MISSING
    assert verify.exit_code(verify.verify(tmp_path / "old.zip", trust=tmp_path / "old-keys", since=last)) == 0
    assert row(tmp_path / "old.zip", tmp_path / "old-keys", _checkpoint(estate, tmp_path))[0] == verify.FALSE
    # the old shard goes on in secret: two histories
    copy = shutil.copytree(away, tmp_path / "copy")
    shutil.copytree(tmp_path / "old-keys", copy / "home-keys")
    secret = Ledger.open(copy / "ledger", head=copy / "head", keys=old.signing.load(copy / "home-keys"))
    secret.append([entry("swept")])
    last.write_bytes(secret.checkpoint())
    assert "two histories" in row(tmp_path / "new.zip", trust, last)[1]


def test_a_crash_between_the_moves_is_finished_by_the_same_command(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, rename = [0], Path.rename

    def failing(self: Path, target: Path) -> Path:
        calls[0] += 1
        if calls[0] == limit:
            raise OSError("killed")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    limit, killed, begun = 0, True, 0
    while killed:  # one kill before each move, until there are no more
        limit, calls[0], killed = limit + 1, 0, False
        here = shutil.copytree(home, home.with_name(f"home-{limit}"))
        try:
            shards.start_shard(open_estate(here), NEXT)
        except OSError:
            killed = True
            if (here / "shards" / "next" / "ready").exists():
                begun += 1
                with pytest.raises(NotAllowed, match="begun and not finished"):
                    _ = open_estate(here).ledger
            else:
                assert open_estate(here).ledger.origin != NEXT, "nothing has moved yet"
            shards.start_shard(open_estate(here), NEXT)
        ledger = open_estate(here).ledger
        assert (ledger.origin, ledger.size) == (NEXT, 2)
        ledger.check()
    assert begun >= 5


def test_nothing_may_be_in_flight(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estate = open_estate(home)
    estate.requests.open([], canary=(), catalog=sha("catalog"), options={}, now=NOW)
    with pytest.raises(NotAllowed, match="in flight"):
        shards.start_shard(estate, NEXT)


def _earlier(ledger: Ledger) -> bytes:
    from fangxin.reports.ledger import checkpoint as notes

    size = ledger.size - 1
    return notes.sign(notes.Checkpoint(ledger.origin, size, ledger.root(size)), ledger._keys.log)


def _checkpoint(estate: object, folder: Path) -> Path:
    path = folder / "other"
    path.write_bytes(estate.ledger.checkpoint())  # type: ignore[attr-defined]
    return path
