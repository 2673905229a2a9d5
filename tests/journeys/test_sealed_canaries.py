"""An auditor's canaries: sealed before, erased like everybody, opened after; what the run did not see is published."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from journeys.small_house import NOW, House
from jsonschema import Draft202012Validator

from fangxin.data.errors import Incomplete, InputError, NotAllowed
from fangxin.data.vocabulary import Identity
from fangxin.flows import erase, sealed
from fangxin.flows.cli.main import main
from fangxin.flows.estate import SCHEMAS, open_estate

Document = dict[str, Any]  # Any: JSON


def asked(*argv: str) -> tuple[int, Document]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([*argv, "--json"])
    return code, json.loads(out.getvalue() or "{}")


def plant(house: House, phones: list[str]) -> list[list[dict[str, str]]]:
    """Three where collections look, two where nobody does; return the placements of each person."""
    with closing(sqlite3.connect(house.root / "stores/w/w.db")) as db, db:
        db.executemany(
            "INSERT INTO accounts VALUES (?, ?, ?)", [(900 + n, p, f"c{n}") for n, p in enumerate(phones[:2])]
        )
    with (house.root / "stores/t/m.csv").open("a") as out:
        out.writelines(f"y{n},{phone}\n" for n, phone in enumerate(phones[1:3]))
    (house.root / "stores/old").mkdir()
    with zipfile.ZipFile(house.root / "stores/old/export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("2019.csv", f"who,phone\nz,{phones[3]}\n")
    (house.root / "stores/t/kept-for-later.jsonl.gz").write_bytes(
        gzip.compress(b'{"call": "+86 %s"}' % phones[4].encode())
    )
    return [
        [{"collection": "w/accounts"}],
        [{"collection": "w/accounts"}, {"collection": "t/members"}],
        [{"file": "t/m.csv"}],
        [{"file": "old/export.zip"}],
        [{"file": "t/kept-for-later.jsonl.gz"}],
    ]


@pytest.fixture
def envelope(house: House) -> Path:
    """What the auditor drafted, planted, and wrote down."""
    path = house.root / "auditor.yml"
    code, told = asked("canary", "draft", str(path), "--people", "5", "--kind", "phone_number")
    assert (code, told["people"]) == (0, 5)
    document = yaml.safe_load(path.read_text())
    placements = plant(house, [one["identities"]["phone_number"] for one in document["people"]])
    for one, mine in zip(document["people"], placements, strict=True):
        one["placements"] = mine
    path.write_text(yaml.safe_dump(document))
    return path


def begun(house: House, envelope: Path, *, but: int = 0) -> str:
    """Seal, and open a batch of the auditor's people (all but the last few)."""
    seal = house.root / "auditor.seal"
    code, told = asked("canary", "seal", str(envelope), "--out", str(seal))
    assert code == 0
    estate = open_estate(house.home, house.catalog.parent, NOW)
    people = [one.identities for one in sealed.read_envelope(envelope).people]
    made = sealed.read_seal(seal)
    options = {"approved": True, "now": NOW.isoformat(), "canaries": [vars(made)]}
    assert told["commitment"] == made.commitment
    return erase.open_batch(estate, people[: len(people) - but], options=options)


def certificates(house: House, batch: str) -> list[Document]:
    told = erase.summary(house.home, batch)["requests"]
    return [json.loads(Path(one["certificate"]).read_bytes()) for one in told]


def test_of_five_canaries_three_are_erased_and_proven_and_two_reported_outside_the_catalog(
    house: House, envelope: Path
) -> None:
    batch = begun(house, envelope)
    assert house.entries().count("canary.planted") == 1
    with pytest.raises(Incomplete, match="not opened yet"):
        erase.journey(batch)
    assert "certificate.issued" not in house.entries()
    code, told = asked("canary", "open", str(envelope), "--home", str(house.home))
    schema = Draft202012Validator(json.loads((SCHEMAS / "canary-open.json").read_text("utf-8")))
    assert [error.message for error in schema.iter_errors(told)] == []
    assert (code, told["counts"]) == (0, {"erased": 4, "retained": 0, "reported": 2, "missed": 0})
    assert [(one["person"], one["outcome"]) for one in told["placements"]] == [
        (1, "erased"), (2, "erased"), (2, "erased"), (3, "erased"), (4, "reported"), (5, "reported"),
    ]  # fmt: skip
    erase.journey(batch)
    found = certificates(house, batch)
    assert [one["outcome"] for one in found] == ["erased"] * 3 + ["partial"] * 2
    assert [[o["place"].rpartition("/")[2] for o in one["outside"]] for one in found[3:]] == [
        ["export.zip"], ["kept-for-later.jsonl.gz"],
    ]  # fmt: skip
    commitment = sealed.read_envelope(envelope).commitment
    counts = {"placements": 6, **told["counts"]}
    assert {json.dumps(one["canaries"], sort_keys=True) for one in found} == {
        json.dumps([{"commitment": commitment, "opened": True, **counts}], sort_keys=True)
    }
    assert house.entries().count("canary.erased") == 1
    assert house.verified(batch) == 0
    phones = [i.value for one in sealed.read_envelope(envelope).people for i in one.identities]
    draft = Path(erase.summary(house.home, batch)["draft"]).read_text()
    assert "kept-for-later.jsonl.gz" in draft
    assert not [p for p in phones if p in draft]


def test_a_canary_that_nobody_asked_for_and_a_place_that_nobody_walks_are_published_as_missed(
    house: House, envelope: Path
) -> None:
    document = yaml.safe_load(envelope.read_text())
    document["people"][0]["placements"].append({"file": "/nowhere/at/all.csv"})
    envelope.write_text(yaml.safe_dump(document))
    batch = begun(house, envelope, but=1)
    with pytest.raises(Incomplete):
        erase.journey(batch)
    code, told = asked("canary", "open", str(envelope), "--home", str(house.home))
    assert (code, told["counts"]) == (1, {"erased": 4, "retained": 0, "reported": 1, "missed": 2})
    erase.journey(batch)
    assert {one["canaries"][0]["missed"] for one in certificates(house, batch)} == {2}
    assert house.verified(batch) == 0


@pytest.mark.drill
def test_an_envelope_that_was_changed_after_it_was_sealed_does_not_open(house: House, envelope: Path) -> None:
    batch = begun(house, envelope)
    with pytest.raises(Incomplete):
        erase.journey(batch)
    whole = envelope.read_text()
    envelope.write_text(whole.replace("old/export.zip", "t/m.csv"))
    assert asked("canary", "open", str(envelope), "--home", str(house.home))[0] == 4
    estate = open_estate(house.home, house.catalog.parent, NOW)
    with pytest.raises(NotAllowed, match="commitment is another"):
        sealed.unseal(estate, estate.requests.batch(batch), sealed.read_envelope(envelope))
    assert asked("canary", "unopened", batch, "--home", str(house.home))[0] == 4
    assert asked("canary", "unopened", batch, "--yes", "--home", str(house.home))[0] == 0
    erase.journey(batch)
    assert {one["canaries"][0]["opened"] for one in certificates(house, batch)} == {False}
    assert house.verified(batch) == 0


def test_a_seal_is_opened_only_after_validation(house: House, envelope: Path) -> None:
    batch = begun(house, envelope)
    house.until(erase.overwrite, batch)
    with pytest.raises(NotAllowed, match="not validated"):
        sealed.unseal(*erase.opened(batch), sealed.read_envelope(envelope))


WRONG = {
    "not YAML": ("format: [", "well-formed"),
    "another format": ("format: fangxin/canaries/9", "expected fangxin/canaries/1"),
    "no blinding": ("format: fangxin/canaries/1\npeople: []", "64 hexadecimal digits"),
    "nobody": ("format: fangxin/canaries/1\nblinding: " + "ab" * 32 + "\npeople: []", "at least one"),
    "no placement": (
        "format: fangxin/canaries/1\nblinding: " + "ab" * 32 + "\npeople: [{identities: {email: a@b.cn}}]", "person 1",
    ),
    "a number without quotes": (
        "format: fangxin/canaries/1\nblinding: " + "ab" * 32
        + "\npeople: [{identities: {phone_number: 13900000001}, placements: [{file: a}]}]", "into quotes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_an_envelope_with_a_mistake_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as refused:
        sealed.read_envelope(path)
    assert str(path) in str(refused.value)


def test_a_commitment_binds_people_and_places_and_cannot_be_guessed_without_the_blinding(tmp_path: Path) -> None:
    one = sealed.Person((Identity("phone_number", "19900000001"),), (sealed.Placement(file="a"),))
    made = sealed.Envelope((one,), bytes(32)).commitment
    assert made != sealed.Envelope((one,), b"\1" * 32).commitment
    other = sealed.Person(one.identities, (sealed.Placement(file="b"),))
    assert made != sealed.Envelope((other,), bytes(32)).commitment
