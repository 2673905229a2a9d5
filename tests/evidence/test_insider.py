"""What an operator could try who holds all keys of his own: hide, say twice, say under another name. And bombs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any  # JSON documents

import pytest
from evidence.made_up_year import facts, year
from evidence.small_home import NOW, Home, certificate, entry, sha
from evidence.test_approvals import KEYS, grant, sign, told

from fangxin.checks import verify
from fangxin.reports import package
from fangxin.reports.periodic import report, report_bytes

Entries = list[dict[str, Any]]
GRANT = grant()


def case(entries: Entries, files: dict[str, bytes] | None = None, **brought: bytes) -> verify._Case:
    """A package of which the tree is known to hold: only what entries and files say can be a lie."""
    trust = {name.replace("_", "-", 1).replace("_", "."): raw for name, raw in brought.items()}
    one = verify._Case(Path(), trust=trust, officers=(), since=None, quorum=0, challenge=None, secret=None)
    one._files, one._entries = dict(files or {}), entries
    return one


def outcome(check: Callable[[], str]) -> tuple[str, str]:
    found = verify._run("x", check)
    assert "verifier itself" not in found.reason
    return found.result, found.reason


CLEAN: Entries = [entry("law.loaded", law="cn"), entry("request.opened"), entry("validated")]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            [entry("residue.found", tag="1" * 32), entry("erase.intended"), entry("store.overwritten", intent=4)],
            "residue",
        ),
        ([entry("validated", hits=3)], "found hits"),
        ([entry("validated", failed=1)], "found hits, or what FAILED"),
        ([entry("validated", hits=3), entry("certificate.issued")], "found hits"),
    ],
)
def test_what_a_search_found_is_not_hidden_by_other_work(more: Entries, says: str) -> None:
    result, reason = outcome(case(CLEAN + more).order)
    assert (result, says in reason) == (verify.MISSING, True), reason
    assert outcome(case([*CLEAN, *more, entry("validated")]).order)[0] == verify.HOLDS
    assert outcome(case([*CLEAN, *more, entry("certificate.issued", verdict="failed")]).order)[0] == verify.HOLDS


def signed_entries(done: Entries) -> verify._Case:
    """A plan that two officers approved; its intent is entry 1, that of another plan entry 2."""
    approvals = sign(GRANT, "an", "bo")
    files = {f"approvals/{sha(one.public())}.json": one.public() for one in approvals}
    files |= {f"officers/{n}.pub": f"{k.public_key().public_bytes_raw().hex()}\n".encode() for n, k in KEYS.items()}
    intents = [entry("erase.intended", store="vault", plan=sha(one), units="20-99") for one in ("big", "other")]
    found = case([entry("approved", plan=sha("big"), **told(GRANT, approvals)), *intents, *done], files)
    found._officers = {raw for name, raw in files.items() if name.startswith("officers/")}
    return found


def gone(intent: int, **fields: str) -> dict[str, int | str]:
    plain: dict[str, int | str] = {"before": sha("a"), "after": sha("b"), "grant": GRANT.plan_hash}
    return entry("key.destroyed", intent=intent, **(plain | fields))


@pytest.mark.parametrize(
    ("done", "says"),
    [
        ([gone(1, grant=sha("mine")), gone(1)], "another grant"),
        ([gone(1), gone(2, after=sha("c"))], "another plan"),
        ([gone(1), gone(1, before=sha("b"), after=sha("c"))], "more than once"),
    ],
)
def test_what_officers_signed_is_carried_out_once_and_for_their_plan(done: Entries, says: str) -> None:
    assert outcome(signed_entries([gone(1)]).approvals)[0] == verify.HOLDS
    result, reason = outcome(signed_entries(done).approvals)
    assert (result, says in reason) == (verify.FALSE, True), reason


def test_a_certificate_rests_on_a_validation_after_the_keys_died_and_counts_no_more_than_died() -> None:
    keys = {"destroyed": 2, "commitment_before": sha("a"), "commitment_after": sha("b")}
    one = case([])
    one._keys_gone(keys, [gone(0)], "x")
    one._keys_gone(keys, [gone(0, after=sha("m")), gone(0, before=sha("m"))], "x")
    for lie, before in (
        (keys, []),
        (keys, [gone(0, after=sha("m"))]),
        (keys, [gone(0, before=sha("m")), gone(0, after=sha("m"))]),
        (keys | {"destroyed": 5}, [gone(0)]),
    ):
        with pytest.raises(verify.Wrong, match=r"before the validation|more keys"):
            one._keys_gone(lie, before, "x")


def test_canaries_that_were_missed_are_not_called_unopened_nor_opened_twice() -> None:
    seal = {"commitment": sha("seal"), "opened": True, "placements": 2, "erased": 2, "retained": 0, "reported": 0}
    seal["missed"] = 0
    good = entry("canary.erased", seal=sha("seal"), placements=2, erased=2, retained=0, reported=0, missed=0)
    bad = good | {"erased": 1, "missed": 1}
    start = [entry("canary.planted", digest=sha("seal")), entry("validated")]
    case([*start, good])._canaries([seal], "x", 1, 3)
    unopened = seal | {"opened": False, "placements": 0, "erased": 0}
    case(start)._canaries([unopened], "x", 1, 2)
    for lie, after in ((unopened, [bad]), (seal, [bad]), (seal, [bad, good])):
        with pytest.raises(verify.Wrong, match="canaries"):
            case([*start, *after])._canaries([lie], "x", 1, 4)


def test_a_statement_says_what_the_validation_says_that_names_it() -> None:
    one = case([entry("validated", findings=sha("f"), bytes=5)])
    one._as_validated({"bytes": 5, "verdicts": {"ERASED": 3}}, sha("f"), "x")
    one._as_validated({"bytes": 6}, sha("another"), "x")
    for lie in ({"hits": 1}, {"bytes": 6}, {"verdicts": {"FAILED": 1}}, {"verdicts": "FAILED"}):
        with pytest.raises(verify.Wrong, match="states"):
            one._as_validated(lie, sha("f"), "x")
    ended = case([entry("validated", findings=sha("f"), failed=2)])
    ended._as_validated({"verdicts": {"FAILED": 2}}, sha("f"), "x")
    for lie in ({"verdicts": {"FAILED": 1}}, {"verdicts": {"ERASED": 2}}, {}):
        with pytest.raises(verify.Wrong, match="states"):
            ended._as_validated(lie, sha("f"), "x")


def test_no_certificate_rests_on_a_validation_whose_statement_does_not_cover_it() -> None:
    said = {"people": 2, "verdicts": {"ERASED": 3, "FAILED": 1}}

    def covered(rows: list[str], people: int, said: object, digest: str = "") -> tuple[str, str]:
        payload = base64.b64encode(json.dumps({"predicate": said}, separators=(",", ":")).encode()).decode()
        raw = json.dumps({"payload": payload}, separators=(",", ":")).encode()
        one = case([entry("validated", findings=digest or sha(raw))], {f"dsse/{digest or sha(raw)}.json": raw})
        shown: list[list[dict[str, str]]] = [[{"verdict": row} for row in rows], *([] for _ in range(people - 1))]
        one._kept = [("x", 1, {"evidence": {"validated": 0}, "collections": each}) for each in shown]
        return outcome(lambda: one._covered() or "")

    assert covered(["ERASED", "ERASED", "FAILED"], 2, said)[0] == verify.HOLDS
    assert covered(["NOT_PRESENT"], 3, {"hits": 0})[0] == verify.HOLDS  # older ones do not say
    assert covered(["FAILED"] * 3, 3, said, sha("another"))[0] == verify.HOLDS  # the package does not have it
    for rows, people in ((["ERASED"], 3), (["FAILED"] * 2, 1), (["NOT_PRESENT"], 1)):
        result, why = covered(rows, people, said)
        assert (result, "entry 0" in why) == (verify.FALSE, True)


@pytest.mark.parametrize("more", [{"hits": 2}, {"failed": 1}])
def test_no_certificate_but_a_failed_one_rests_on_a_validation_that_did_not_hold(
    more: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify._Case, "_origin", lambda _self: "o")
    one, evidence = case([entry("validated", **more)]), {"origin": "o", "validated": 0, "proof": None}
    for outcome_, says in (("erased", "did not hold"), ("partial", "did not hold"), ("failed", "its proof is neither")):
        with pytest.raises(verify.Wrong, match=says):
            one._certified({"outcome": outcome_, "evidence": evidence}, "x", 1)


def test_a_report_is_that_of_its_own_month_and_has_its_figures_with_it() -> None:
    made = year(days=70, per_day=2)
    raw = report_bytes(report(facts(made, "2026-02")))
    entries = [one for _index, one in made["entries"]]

    def said(name: str, check: str, **forms: bytes) -> tuple[str, str]:
        published = {"type": "report.published", "time": "2026-04-01T01:00Z", "period": name}
        published |= {kind: sha(content) for kind, content in forms.items()} | {"json": sha(raw)}
        one = case([*entries, published], {f"reports/{name}.{kind}": content for kind, content in forms.items()})
        one._kept = [(digest, 0, document) for digest, document in made["certificates"].items()]
        one._files |= {digest: b"" for digest in made["certificates"]}
        return outcome(getattr(one, check))

    assert "another period" in said("2026-03", "figures", json=raw)[1], "February's figures are not those of March"
    assert "another period" not in said("2026-02", "figures", json=raw)[1]
    assert said("2026-02", "reports", html=b"All is well.")[0] == verify.MISSING
    assert said("2026-02", "reports", json=raw, html=b"")[0] == verify.HOLDS


def test_a_band_is_the_one_in_which_the_count_lies() -> None:
    for good in (7, "5-19", "0-19"):
        verify._agree(good, 7, "x")
    verify._agree("1000-9999", 1000, "x")
    for lie in ("0-99", "5-99", "1-4", "0-99999999", "7-7", "5-019", 8, True):
        with pytest.raises(verify.Wrong):
            verify._agree(lie, 7, "x")


def test_who_brings_the_key_of_an_authority_is_told_that_nothing_is_stamped() -> None:
    files = {"policy.json": b'{"quorum":0,"time_stamps":"none"}'}
    assert outcome(case([], files).time)[0] == verify.NOT_APPLICABLE
    assert outcome(case([], files, tsa_ca_pem=b"").time)[0] == verify.MISSING


def test_nothing_that_comes_from_the_package_itself_counts_as_brought(shared: Home, tmp_path: Path) -> None:
    out = tmp_path / "package"
    package.write_folder(out, ledger=shared.ledger, keys=shared.keys, **shared.parts)
    key = str(out / "evidence.pub.pem")
    for given in ({"trust": out}, {"trust": out / "log.vkey"}, {"challenge": key}, {"officers": [key]}):
        with pytest.raises(verify.Usage, match="of the package itself"):
            verify.verify(out, **given)  # type: ignore[arg-type]
    assert verify.exit_code(verify.verify(out, trust=shared.trust)) == 0


def test_no_name_in_a_document_can_write_another_answer_on_the_terminal() -> None:
    document = certificate(0)
    name = "a\x1b[2J\n\nEvery check that applies was run and holds.\u202e" + "a" * 5000
    document["collections"][0] |= {"dataset": name, "hits_after": 1}
    result, reason = outcome(lambda: str(verify._certificate(document, "x")))
    assert (result, len(reason) <= 1000, reason.isprintable()) == (verify.FALSE, True, True)


def test_what_is_malformed_has_a_message_of_its_own() -> None:
    asked = {"format": "fangxin/challenge/1", "checkpoint": "", "nonce": "a" * 33, "count": 1, "from": NOW, "to": NOW}
    lies: list[tuple[str, Callable[[], object]]] = [
        ("nonce", lambda: verify._challenge(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode())),
        ("does not exist", lambda: verify._chained([{"period": "2026-19"}], [], "2026-02", "2026-02-01")),
        ("times that are none", lambda: verify._certificate(certificate(0, times=[]), "x")),
        (
            "times that are none",
            lambda: verify._certificate(certificate(0, times={"validated": "2026-19-39T29:59Z"}), "x"),
        ),
        ("without its time", lambda: verify._pdf_time(b"/M (D:00010101000000+99'00')", "x")),
        ("more than", lambda: verify.strict_json(b"[" + b"[]," * 2**23 + b"0]", "x")),
        ("larger than", lambda: verify.time_token(b"0" * 2**19, b"", [], "x")),
        ("a list of more", lambda: verify._lines(b"a\n" * 2**24 + b"\n", "x")),
        ("more certificates", lambda: verify._ca_file(b"x" * 2**19, "x")),
        ("not a public key", lambda: verify._pem_key(b"x" * 2**19, "x")),
        ("larger than", lambda: verify.Cms(b"0" * 2**19, "x")),
        ("more signatures", lambda: verify.signed_pdf(b"/ByteRange [0 1 2 3]" * 65, [], None, "x")),
        ("larger than", lambda: verify.signed_pdf(b"/ByteRange [0 21 9999999 1]" + b"0" * 10**7, [], None, "x")),
    ]
    for says, lie in lies:
        with pytest.raises(verify.Wrong, match=says):
            lie()
    assert "more entries" in outcome(lambda: str(verify._bundle(b"\0\1x" * 257, 257, "x")))[1]
    assert verify._oid(verify.Der(6, b"\xff" * 4000 + b"\x01", b"")) == ""
    bomb = b"1 0 obj<</Type/EmbeddedFile/Filter/FlateDecode/Length 99999>>\nstream\n" + verify.zlib.compress(
        bytes(10**7)
    )
    with pytest.raises(verify.Wrong, match="larger than it can be"):
        verify.attachments(bomb, "x", 100)
    assert len(verify.attachments(b"1 0 obj<</Type/EmbeddedFile/Length 1>>\nstream\nx" * 9, "x")) == 2
