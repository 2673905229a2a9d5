"""The cooling-off period: two shares bring a person's keys back, one never does, and after the end none do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import pytest
from keys.vaults import LIFTED, Adversary, in_child, raw, refs

from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys import seal
from fangxin.data.keys.disclosure import disclosed
from fangxin.data.keys.domains import OFFICERS, SEALED
from fangxin.data.keys.faults import KeyAbsent, SubjectSealed
from fangxin.data.keys.grant import Drops, Grant
from fangxin.data.keys.roots import shares
from fangxin.data.keys.seal import CASE, Case, Record, SealForged, Seals
from fangxin.data.keys.tree import KeyTree
from fangxin.data.keys.vault import read_copy

NOW = datetime(2026, 11, 24, 1, tzinfo=UTC)
END = NOW + timedelta(days=7)
GENERAL, SENSITIVE, RETAINED = 1, 2, 3


class Killed(BaseException):
    """A kill at a step of a batch."""


@dataclass
class Office:
    """Two vaults, three officers, twenty people with keys in three domains; the first five ask to be closed."""

    seals: Seals
    officers: list[tuple[bytes, bytes]]
    people: list[bytes]
    cases: list[Case]
    codes: list[str]
    stop: set[str]

    @property
    def tree(self) -> KeyTree:
        return self.seals.tree

    def grant(self, drops: Drops) -> Grant:
        tree = self.tree
        return Grant.of(
            drops, vault=tree.vault_id, generation=tree.generation, catalog="", not_before=NOW, action="replace",
            valid_for=timedelta(days=9),
        )  # fmt: skip

    def seal(self) -> None:
        publics = [public for _private, public in self.officers]
        self.seals.seal(self.cases, publics, grant=self.grant(seal.drops_of(self.cases)), now=NOW)

    def answers(self, number: int, *who: int) -> list[bytes]:
        body = self.seals.body(self.cases[number].id)
        return [seal.answer(self.officers[n][0], body) for n in who]

    def restore(self, number: int, *, code: str | None = None, who: tuple[int, ...] = (), at: datetime = NOW) -> None:
        one = self.cases[number]
        self.seals.restore(
            one.id, one.ref, code=code, answers=self.answers(number, *who), now=at,
            grant=self.grant({one.ref: frozenset({SEALED})}),
        )  # fmt: skip

    def end(self, *numbers: int, at: datetime = END, waived: bool = False) -> None:
        cases = {self.cases[n].id: self.cases[n].ref for n in numbers}
        self.seals.end(cases, grant=self.grant(seal.end_drops(cases)), now=at, waived=waived)

    def everything(self) -> dict[tuple[int, bytes], bytes]:
        return {(code, ref): key for code in (1, 2, 3) for ref, key in raw(self.tree, self.people, code).items()}

    def of(self, keys: Mapping[tuple[int, bytes], bytes], number: int) -> set[bytes]:
        """The keys of one case that the seal takes."""
        return {key for (code, ref), key in keys.items() if ref == self.cases[number].ref and code != RETAINED}


@pytest.fixture
def office(tmp_path: Path) -> Office:
    stop: set[str] = set()

    def at(step: str) -> None:
        if step in stop:
            stop.clear()
            raise Killed(step)

    tree = KeyTree.create(tmp_path / "vault", capacity=100, at=at, guard=LIFTED)
    second = KeyTree.create(tmp_path / "officers", capacity=100, at=at, guard=LIFTED)
    people = refs(20)
    for code in (GENERAL, SENSITIVE, RETAINED):
        tree.ensure(people, code)
    made = [seal.new_code() for _ in range(5)]
    cases = [Case(os.urandom(16), people[n], (GENERAL, SENSITIVE), made[n][1], END) for n in range(5)]
    officers = [seal.officer_key() for _ in range(3)]
    return Office(Seals(tmp_path / "seals", tree, second), officers, people, cases, [code for code, _ in made], stop)


def test_a_seal_takes_the_keys_out_leaves_what_a_law_retains_and_lets_no_new_key_be_made(office: Office) -> None:
    before = office.everything()
    office.seal()
    sealed = {case.ref for case in office.cases}
    assert office.everything() == {k: v for k, v in before.items() if k[0] == RETAINED or k[1] not in sealed}
    with pytest.raises((KeyAbsent, SubjectSealed)):
        office.tree.get(office.cases[0].ref, GENERAL)
    with pytest.raises(SubjectSealed):
        office.tree.ensure([office.cases[0].ref], GENERAL)


def test_two_vaults_with_one_root_seal_nobody(office: Office, tmp_path: Path) -> None:
    with KeyTree.open(office.tree.folder) as same, pytest.raises(NotAllowed, match="one root"):
        Seals(tmp_path / "other", office.tree, same)


@pytest.mark.parametrize("pair", [("code", "vault"), ("vault", "officers"), ("code", "officers")])
def test_any_two_shares_restore_every_key_bit_for_bit(
    office: Office, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = office.everything()
    office.seal()
    if "vault" not in pair:  # the vault hands out no share: the person and two officers are enough
        monkeypatch.setattr(office.tree, "get", _absent)
    for number in range(5):
        code = office.codes[number].lower().replace("0", "o") if "code" in pair else None
        office.restore(number, code=code, who=(2, 0) if "officers" in pair else ())
    assert office.everything() == before
    assert office.seals.cases() == ()


def _absent(ref: bytes, domain: int) -> bytes:
    raise KeyAbsent("not handed out")


def test_no_single_share_opens_a_record_in_any_subset(office: Office) -> None:
    """All subsets of shares: none and one are refused, two and three give the same keys."""
    before = office.everything()
    office.seal()
    one = office.cases[0]
    record = Record.parse(office.seals.body(one.id))
    entry = office.seals.second.get(record.officers_ref, OFFICERS)
    every = {
        seal.PERSON: seal.persons_share(record, office.codes[0]),
        seal.DEPLOYMENT: office.tree.get(one.ref, SEALED),
        seal.JOINTLY: seal.officers_share(record, office.answers(0, 0, 1), entry),
    }
    for size in range(4):
        for names in combinations(every, size):
            some = {name: every[name] for name in names}
            if size < 2:
                with pytest.raises(NotAllowed):
                    seal.open_record(record, some)
            else:
                assert {key for _code, key in seal.open_record(record, some)} == office.of(before, 0)


def test_the_service_with_everything_it_holds_reads_no_sealed_person(office: Office, tmp_path: Path) -> None:
    """Both vaults with their living roots, every record, and one officer who helps: nothing of the sealed opens."""
    before = office.everything()
    office.seal()
    thief, other = Adversary(office.tree, tmp_path / "a"), Adversary(office.seals.second, tmp_path / "b")
    thief.visit()
    other.visit()
    root = shares.load(office.tree.anchor, office.tree.holders)[1]
    second = shares.load(office.seals.second.anchor, office.seals.second.holders)[1]
    held = disclosed(thief.copies, [root]).keys | disclosed(other.copies, [second]).keys
    assert held
    assert not any(office.of(before, n) & held for n in range(5))
    for number, case in enumerate(office.cases):
        record = Record.parse(office.seals.body(case.id))
        with pytest.raises(NotAllowed, match="two different officers"):
            office.restore(number, who=(1,))
        with pytest.raises(NotAllowed, match="two different officers"):
            office.restore(number, who=(1, 1))
        for key in held:  # the deployment share and the officers' entry are among them
            for share in (seal.DEPLOYMENT, seal.JOINTLY, seal.PERSON):
                other_share = next(s for s in (seal.DEPLOYMENT, seal.PERSON) if s != share)
                with pytest.raises(SealForged):
                    seal.open_record(record, {share: key, other_share: key})


def test_after_the_end_two_shares_are_dead_and_no_backup_with_the_code_opens_the_record(
    office: Office, tmp_path: Path
) -> None:
    before = office.everything()
    office.seal()
    bodies = {case.id: office.seals.body(case.id) for case in office.cases}
    said = {n: office.answers(n, 0, 1, 2) for n in range(5)}
    thief, other = Adversary(office.tree, tmp_path / "a"), Adversary(office.seals.second, tmp_path / "b")
    thief.visit()
    other.visit()
    old = shares.load(office.tree.anchor, office.tree.holders)[1]
    old_second = shares.load(office.seals.second.anchor, office.seals.second.holders)[1]
    office.end(*range(5))
    thief.visit()
    other.visit()
    assert office.seals.cases() == ()

    def opened(roots: list[bytes], seconds: list[bytes]) -> set[bytes]:
        """Every record with the person's code, all officers, and every key that old copies and these roots give."""
        found: set[bytes] = set()
        vault, entries = disclosed(thief.copies, roots).keys, disclosed(other.copies, seconds).keys
        for number, case in enumerate(office.cases):
            record = Record.parse(bodies[case.id])
            person = {seal.PERSON: seal.persons_share(record, office.codes[number])}
            tries = [person | {seal.DEPLOYMENT: key} for key in vault]
            for entry in entries:
                try:
                    tries.append(person | {seal.JOINTLY: seal.officers_share(record, said[number], entry)})
                except SealForged:
                    continue
            for some in tries:
                try:
                    found |= {key for _code, key in seal.open_record(record, some)}
                except SealForged:
                    continue
        return found

    now = [shares.load(office.tree.anchor, office.tree.holders)[1]]
    second = [shares.load(office.seals.second.anchor, office.seals.second.holders)[1]]
    assert opened(now, second) == set()
    everybody = set().union(*(office.of(before, n) for n in range(5)))
    assert opened([old], second) == everybody  # controls: either old root alone would bring them back
    assert opened(now, [old_second]) == everybody


def test_the_seven_days_are_exact_unless_regret_is_waived_for_a_day_later(office: Office) -> None:
    office.seal()
    with pytest.raises(NotAllowed, match="runs until"):
        office.end(0, at=END - timedelta(seconds=1))
    office.restore(0, code=office.codes[0], at=END - timedelta(seconds=1))
    with pytest.raises(NotAllowed, match="ended"):
        office.restore(1, code=office.codes[1], at=END)
    with pytest.raises(NotAllowed, match="ended"):
        office.restore(1, code=office.codes[1], at=END + timedelta(seconds=1))
    office.end(1, at=END)
    with pytest.raises(NotAllowed, match="runs until"):
        office.end(2, at=NOW + timedelta(hours=23, minutes=59, seconds=59), waived=True)
    office.end(2, at=NOW + timedelta(hours=24), waived=True)
    with pytest.raises(InputError, match="no such case"):
        office.restore(2, code=office.codes[2])


def test_the_vault_itself_keeps_the_end_of_a_seal_whoever_calls(office: Office) -> None:
    """No call past `Seals` ends a seal early, shortens it, puts other keys in place, or makes a share of its own."""
    before = office.everything()
    office.seal()
    tree, one = office.tree, office.cases[0]
    share: Drops = {one.ref: frozenset({SEALED})}
    other = {one.ref: {GENERAL: bytes(32), SENSITIVE: bytes(32)}}

    def leave(drops: Drops, action: str) -> Grant:
        return Grant.of(
            drops, vault=tree.vault_id, generation=tree.generation, catalog="", not_before=NOW, action=action
        )

    for drops in (share, {one.ref: None}):
        with pytest.raises(NotAllowed, match="runs until"):
            tree.destroy(drops, grant=leave(drops, "destroy"), now=NOW)
        with pytest.raises(NotAllowed, match="runs until"):
            tree.replace(drop=drops, add=other, grant=leave(drops, "replace"), now=NOW)
    tree.extend([one.ref], NOW)
    assert tree.sealed_until(one.ref) == "2026-12-01T01:00:00Z", "it is never shortened"
    tree.extend([one.ref], END + timedelta(days=1))
    with pytest.raises(NotAllowed, match="runs until 2026-12-02"):
        office.end(0, at=END)
    office.restore(0, code=office.codes[0], at=END + timedelta(hours=23))
    assert office.everything().items() >= {k: v for k, v in before.items() if k[1] == one.ref}.items()
    for attempt in (lambda: tree.ensure([one.ref], SEALED), lambda: tree.create_keys(refs(1, start=50), [SEALED])):
        with pytest.raises(NotAllowed, match="not made like a key"):
            attempt()
    leaving: Drops = {one.ref: frozenset({GENERAL})}
    with pytest.raises(NotAllowed, match="a seal says"):
        tree.replace(drop=leaving, add={one.ref: {SEALED: bytes(32)}}, grant=leave(leaving, "replace"), now=NOW)


def test_after_a_restore_nothing_dies_until_the_officers_entry_is_dead(office: Office, tmp_path: Path) -> None:
    """A restore that was killed leaves a record that would open later-destroyed keys: the vault waits for its end."""
    before = office.everything()
    office.seal()
    one = office.cases[0]
    record = Record.parse(body := office.seals.body(one.id))
    office.seals.second._at = lambda step: (_ for _ in ()).throw(Killed(step)) if step == "settled" else None
    with pytest.raises(Killed):
        office.restore(0, code=office.codes[0])
    office.seals.second._at = lambda _step: None
    assert office.everything().items() >= {k: v for k, v in before.items() if k[1] == one.ref}.items()
    entry = office.seals.second.get(one.id, OFFICERS)
    both = {
        seal.PERSON: seal.persons_share(record, office.codes[0]),
        seal.JOINTLY: seal.officers_share(record, [seal.answer(p, body) for p, _ in office.officers], entry),
    }
    assert {key for _code, key in seal.open_record(record, both)} == office.of(before, 0)  # that is why
    drops: Drops = {one.ref: None}
    grant = Grant.of(drops, vault=office.tree.vault_id, generation=office.tree.generation, catalog="", not_before=NOW)
    with pytest.raises(NotAllowed, match="was restored"):
        office.tree.destroy(drops, grant=grant, now=NOW)
    copy = tmp_path / "copy.db"
    office.tree.backup(copy)
    address = office.tree._reading(lambda walk, state: walk.hiding(state).few([one.ref]))[0]
    told = "".join(read_copy(copy)[0])
    assert "restored/" in told
    assert address.hex() not in told  # whoever has the root can tell for ever whose address it is
    assert office.seals.settle(now=NOW) == 1
    assert office.seals.settle(now=NOW) == 0
    with pytest.raises(KeyAbsent):
        office.seals.second.get(one.id, OFFICERS)
    assert office.tree.destroy(drops, grant=grant, now=NOW).destroyed == 3


def test_a_record_that_was_torn_while_it_was_written_goes_with_its_officers_entry(office: Office) -> None:
    office.seal()
    torn = os.urandom(CASE)
    office.seals.second.ensure([torn], OFFICERS)
    (office.seals.folder / f"{torn.hex()}.partial").write_bytes(office.seals.body(office.cases[0].id)[:100])
    assert office.seals.settle(now=NOW) == 1
    assert len(office.seals.cases()) == len(list(office.seals.folder.iterdir())) == 5
    with pytest.raises(KeyAbsent):
        office.seals.second.get(torn, OFFICERS)


@pytest.mark.parametrize("step", ["settled", "prepared", "written", "pages", "committed", "retired", "scrubbed"])
@pytest.mark.parametrize("vault", ["first", "second"])
@pytest.mark.parametrize("act", ["seal", "restore", "end"])
def test_a_kill_at_any_step_leaves_sealed_or_not_sealed_and_settling_clears_the_rest(
    office: Office, act: str, vault: str, step: str
) -> None:
    before = office.everything()
    if act != "seal":
        office.seal()
    one = office.cases[0]

    def work() -> None:
        if act == "seal":
            office.seal()
        elif act == "restore":
            office.restore(0, code=office.codes[0])
        else:
            office.end(0)

    status = _killed(office, work, step, 1 if vault == "first" else 2)
    killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert killed or (act == "seal" and vault == "second")  # a seal destroys nothing in the second vault
    office.seals.settle(now=NOW)
    assert office.seals.settle(now=NOW) == 0
    sealed = office.tree.get_many([one.ref], SEALED).found[0]
    assert (one.id in office.seals.cases()) == sealed
    mine = {k for (code, ref), k in office.everything().items() if ref == one.ref and code != RETAINED}
    if sealed:
        assert mine == set()
        office.restore(0, code=office.codes[0])
        assert office.everything().items() >= {k: v for k, v in before.items() if k[1] == one.ref}.items()
    else:
        assert mine in (office.of(before, 0), set())
        assert mine == set() if act == "end" else mine == office.of(before, 0)


@pytest.mark.parametrize("number", [1, 3, 5])
@pytest.mark.parametrize("half", [True, False])
def test_a_kill_between_two_records_leaves_nothing_of_the_seal(office: Office, number: int, half: bool) -> None:
    """The keys have not left the vault: what was written of the records goes, and its officers' entries with it."""
    before = office.everything()

    def work() -> None:
        left = [number]
        tell = Seals._sync if not half else os.fsync

        def count(*given: object) -> None:
            tell(*given)  # type: ignore[operator]  # one of the two
            left[0] -= 1 if not half or Path(f"/proc/self/fd/{given[0]}").readlink().suffix == ".partial" else 0
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        if half:
            os.fsync = count
        else:
            Seals._sync = count  # type: ignore[method-assign]  # in the child only, which dies
        office.seal()

    assert os.waitstatus_to_exitcode(_killed(office, work, "", 0)) == -signal.SIGKILL
    assert len(list(office.seals.folder.iterdir())) == number
    assert office.everything() == before
    assert office.seals.settle(now=NOW) == number
    assert list(office.seals.folder.iterdir()) == []
    assert office.seals.second.live() == (0 if number == 5 else 5 - number), "entries that no record ever named"
    office.seal()
    office.restore(2, code=office.codes[2])


def _killed(office: Office, work: Callable[[], None], step: str, times: int) -> int:
    """Run in a child that dies by SIGKILL at the n-th time a batch of either vault reaches the step; its status."""
    left = [times]

    def at(reached: str) -> None:
        left[0] -= reached == step
        if reached == step and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    def child() -> None:
        office.tree._at = office.seals.second._at = at
        work()

    return os.waitpid(in_child(child), 0)[1]


def test_a_mistyped_code_and_another_cases_answers_are_refused(office: Office) -> None:
    office.seal()
    wrong = office.codes[0][:-1] + ("0" if office.codes[0][-1] != "0" else "1")
    with pytest.raises(InputError, match="not a restore code") as told:
        office.restore(0, code=wrong)
    assert wrong[:5] not in str(told.value)
    with pytest.raises(SealForged):
        office.restore(0, code=office.codes[1])
    one = office.cases[0]
    with pytest.raises((SealForged, NotAllowed)):
        office.seals.restore(
            one.id, one.ref, code=None, answers=office.answers(1, 0, 1), now=NOW,
            grant=office.grant({one.ref: frozenset({SEALED})}),
        )  # fmt: skip
    assert office.tree.get_many([one.ref], SEALED).found[0], "nothing was changed"


def test_every_changed_byte_of_a_record_is_noticed(office: Office) -> None:
    office.seal()
    one = office.cases[0]
    body = office.seals.body(one.id)
    share = {seal.DEPLOYMENT: office.tree.get(one.ref, SEALED)}
    noticed, officers = 0, 3 * 96
    for at in range(len(body) - officers):  # what the person and the vault open
        changed = bytearray(body)
        changed[at] ^= 1
        try:
            record = Record.parse(bytes(changed))
            seal.open_record(record, share | {seal.PERSON: seal.persons_share(record, office.codes[0])})
        except SealForged:
            noticed += 1
    unread = 2 * 60 + 16  # the boxes of the other two pairs, and the officers' ref
    assert noticed == len(body) - officers - unread
