"""Destroy keys: one new root for the whole cohort, so that every old copy of the vault becomes noise.

Keys go before bytes: from here on whatever was stored under them is unreadable, in backups too. A person's key of
a record class that a law keeps stays; everything else of theirs dies in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fangxin.data.errors import NotAllowed
from fangxin.data.keys.envelope import ref_of
from fangxin.data.keys.grant import Grant
from fangxin.data.requests import REQUEST_DOMAIN, Batch
from fangxin.data.steps import due
from fangxin.flows.batch import approved_plan, begun, finish, is_done, opened, signed
from fangxin.flows.canary import persona
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import (
    CLOSE_INTENDED,
    CLOSED,
    GIVEN_UP,
    KEYS_DESTROYED,
    KEYS_INTENDED,
    OPENED,
    destroyed_entry,
    mark,
    record,
)
from fangxin.flows.keys_gone import copy_before
from fangxin.flows.plan import Plan, domains, drops
from fangxin.reports.ledger.entries import band


def destroy_keys(batch_id: str) -> None:
    """Destroy the cohort's keys under the approved plan."""
    estate, batch = opened(batch_id)
    if is_done(estate, batch, "destroy_keys"):
        return
    if not begun(estate, batch):
        raise NotAllowed("people of this batch may still change their minds", hint="`fangxin run-due` carries it out")
    plan = approved_plan(estate, batch)
    copy_before(estate, batch)
    event = destroy(estate, batch, plan)
    finish(estate, batch, "destroy_keys", event=dict(event))


def destroy(estate: Estate, batch: Batch, plan: Plan) -> Mapping[str, Any]:
    """Destroy the cohort's keys under the approved plan; idempotent. Returns the receipt as the ledger's event.

    Where none of these keys lives, the vault stays as it is, and the ledger says nothing of a destruction; unless it
    was restored with keys lacking, which older copies may hold.
    """
    codes = {name: estate.tree.domain_code(name) for name in domains(estate.catalog)}
    dying = drops(estate.catalog, plan, codes)
    if not due("keys: one domain"):
        dying = {ref: frozenset(sorted(those)[:-1]) for ref, those in dying.items()}
    intent, outcome = mark(batch, KEYS_INTENDED), mark(batch, KEYS_DESTROYED)
    if not estate.ledger.find([intent]) and not estate.tree.lossy and not _living(estate, dying):
        return _nothing(estate)
    by_officers = signed(estate, batch)
    grant, approvals = by_officers or (_grant(estate, batch, "grant", dying), ())
    entry = {"type": "erase.intended", "tag": intent, "store": "vault", "units": band(len(dying)), "plan": plan.digest}
    at = record(estate, [entry])[intent]
    try:
        receipt = estate.tree.destroy(dying, grant=grant, approvals=approvals, now=estate.now)
    except NotAllowed:  # a grant that was never carried out has expired, or another batch came first: same plan, anew
        if by_officers:
            raise  # what officers signed is carried out as it is, or not at all
        grant = _new_grant(estate, batch, dying)
        estate.requests.keep(batch, "grant", grant.canonical().encode())
        receipt = estate.tree.destroy(dying, grant=grant, now=estate.now)
    estate.tree.tidy()
    record(estate, [destroyed_entry(receipt, outcome, at)])
    return receipt.event()


def forget(estate: Estate, batch: Batch, *, given_up: bool = False) -> None:
    """Destroy the keys under which the cohort's identities lay, and empty the sealed columns. Nothing can follow.

    `given_up`: the batch ends before the cohort's keys die. The canary's keys die as well, and the ledger learns that
    the requests it had opened are refused: else they would count as open for ever.

    Tags need the batch's secret, which dies here: they are noted beforehand, so that a crash in between can finish.
    """
    if batch.secret:
        also = canary_keys(estate, batch) if given_up else {}
        grant = _new_grant(estate, batch, {**_own(estate, batch), **also})
        note = {
            "intent": mark(batch, CLOSE_INTENDED),
            "outcome": mark(batch, CLOSED),
            "grant": grant.canonical(),
            "canary": {ref.hex(): sorted(codes) for ref, codes in also.items()},
            "refused": _refused(estate, batch) if given_up else [],
        }
        estate.requests.done(batch.id, "closing", at=estate.minute, note=note)
    noted = estate.requests.note(batch.id, "closing")
    if noted is not None:
        made_up = {bytes.fromhex(ref): frozenset(codes) for ref, codes in noted.get("canary", {}).items()}
        dying = {**_own(estate, batch), **made_up}
        refused = noted.get("refused", [])
        record(estate, [{"type": "request.refused", "tag": one, "reason": "given-up"} for one in refused])
        entry = {"type": "erase.intended", "tag": noted["intent"], "store": "vault", "units": band(len(dying))}
        at = record(estate, [entry])[noted["intent"]]
        try:
            receipt = estate.tree.destroy(dying, grant=Grant.parse(noted["grant"]), now=estate.now)
        except NotAllowed:  # expired, or another batch came in between
            receipt = estate.tree.destroy(dying, grant=_new_grant(estate, batch, dying), now=estate.now)
        estate.tree.tidy()
        record(estate, [destroyed_entry(receipt, noted["outcome"], at)])


def _refused(estate: Estate, batch: Batch) -> list[str]:
    """Tags under which the requests of a batch that is given up are refused; none for closings, which go on."""
    if batch.options.get("closures"):
        return []
    people = [one for one in estate.requests.requests(batch.id) if not one.canary]
    opened = estate.ledger.places([mark(one, OPENED) for one in people])
    return [mark(one, GIVEN_UP) for one in people if mark(one, OPENED) in opened]


def canary_keys(estate: Estate, batch: Batch) -> dict[bytes, frozenset[int]]:
    """The keys that a batch's canary may have, by ref: known from its identities, before and after it is planted."""
    kind = estate.catalog.person_kind or ""
    codes = frozenset(estate.tree.domain_code(name) for name in domains(estate.catalog))
    one = estate.requests.requests(batch.id)[-1]
    return {ref_of(kind, i.value): codes for i in persona(estate.catalog, one.identities) if i.kind == kind and codes}


def _living(estate: Estate, dying: Mapping[bytes, frozenset[int]]) -> bool:
    """Whether any of these keys is there to be destroyed."""
    for code in sorted(frozenset().union(*dying.values())):
        with estate.tree.get_many([ref for ref, domains in dying.items() if code in domains], code) as keys:
            if keys.found.any():
                return True
    return False


def _nothing(estate: Estate) -> dict[str, Any]:
    """What is told where no key had to die."""
    generation, root = estate.tree.generation, estate.tree.commitment
    return {
        "keys_destroyed": 0,
        "domains": [],
        "generation_before": generation,
        "generation_after": generation,
        "commitment_before": root,
        "commitment_after": root,
        "holders": [],
    }


def _own(estate: Estate, batch: Batch) -> dict[bytes, frozenset[int]]:
    """The keys under which a batch and its requests are sealed with us."""
    return dict.fromkeys(estate.requests.refs(batch.id), frozenset([REQUEST_DOMAIN]))


def _new_grant(estate: Estate, batch: Batch, dying: Mapping[bytes, frozenset[int]]) -> Grant:
    return Grant.of(
        dying,
        vault=estate.tree.vault_id,
        generation=estate.tree.generation,
        catalog=batch.catalog,
        not_before=estate.now,
    )


def _grant(estate: Estate, batch: Batch, name: str, dying: Mapping[bytes, frozenset[int]]) -> Grant:
    """The grant of this batch: made once, kept sealed, so that a repeated destroy is recognised as the same one."""
    kept = estate.requests.kept(batch, name)
    if kept is not None:
        return Grant.parse(kept.decode())
    grant = _new_grant(estate, batch, dying)
    estate.requests.keep(batch, name, grant.canonical().encode())
    return grant
