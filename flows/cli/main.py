"""`fangxin`: the commands, by group; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

import fangxin
from fangxin.flows.cli.console import guarded, warn

app = App(
    name="fangxin",
    help="fangxin 放心: when a company says your data is deleted, fangxin makes it true, and lets a stranger check it.",
    version=fangxin.__version__,
    suppress_keyboard_interrupt=False,  # `guarded` tells it
)
catalog_app = App(name="catalog", help="What is held: check a catalog.")
keys_app = App(name="keys", help="The key vault.")
ledger_app = App(name="ledger", help="The ledger itself.")
app.command(ledger_app)
certificate_app = App(name="certificate", help="Certificates of erasure that were issued.")
report_app = App(name="report", help="What happened in a period, and who is affected by an incident.")
app.command(certificate_app)
app.command(report_app)
request_app = App(name="request", help="The closing of an account: one verb a move.")
app.command(catalog_app)
app.command(keys_app)
app.command(request_app)
ticket_app = App(name="ticket", help="Questions under a receipt code, also when the account is gone.")
app.command(ticket_app)
canary_app = App(name="canary", help="An auditor's sealed canaries: made-up people, opened when a run is validated.")
app.command(canary_app)

Home = Annotated[Path | None, Parameter(name="--home", help="The home; FANGXIN_HOME, else var/.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="One JSON document on stdout.")]
Now = Annotated[str | None, Parameter(name="--now", help="Fix the clock (rehearsal homes only), ISO 8601.")]
CatalogPath = Annotated[
    Path | None, Parameter(name="--catalog", help="A catalog file or folder; default HOME/catalog.")
]
Identities = Annotated[
    list[str] | None,
    Parameter(name="--identity", negative="", help="KIND=@FILE, KIND=- or (warned) KIND=VALUE; repeatable."),
]
Subjects = Annotated[str | None, Parameter(name="--subjects", help="CSV or JSONL, one subject a line; - is stdin.")]


@app.command
def init(
    folder: Path | None = None,
    *,
    rehearsal: bool = False,
    origin: str = "",
    root: Annotated[
        list[str] | None,
        Parameter(
            name="--root",
            negative="",
            help="A further root holder: pkcs11:…, bao:…, kms:… or file:…; repeatable, and all are needed.",
        ),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Make a home: settings, an empty catalog, vault, signing keys and ledger."""
    from fangxin.flows.cli.home import init as work

    return work((folder or _home(home)).resolve(), rehearsal=rehearsal, origin=origin, roots=root or (), as_json=json)


@app.command
def sample(folder: Path, *, people: int = 2000, seed: int = 7, home: Home = None, json: Json = False) -> int:
    """Write the LeCard estate: made-up people in every kind of store, and its catalog."""
    from fangxin.flows.cli.home import sample as work

    _home(home)  # every command takes --home; the estate needs none
    return work(folder, people=people, seed=seed, as_json=json)


@app.command
def demo(*, people: int = 2000, seed: int = 7, home: Home = None, json: Json = False) -> int:
    """Build the estate, erase some of its people through every step, verify, show where everything is."""
    from fangxin.flows.cli.demo import demo as work

    return work(_home(home), people=people, seed=seed, as_json=json)


@catalog_app.command
def lint(paths: list[Path] | None = None, /, *, home: Home = None, json: Json = False) -> int:
    """Say what is wrong with a catalog, as file:line:column; without a path, with the home's."""
    from fangxin.flows.cli.home import lint as work

    return work(paths or [_home(home) / "catalog"], as_json=json)


@app.command
def protect(
    *,
    catalog: CatalogPath = None,
    require: Annotated[str | None, Parameter(name="--require", help="overwrite: refuse media that cannot.")] = None,
    suite: Annotated[str | None, Parameter(name="--suite", help="Of key domains without values yet.")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Put sensitive fields under their subjects' keys and destroy the plaintext files; idempotent."""
    from fangxin.flows.cli.protect import protect as work

    return work(_home(home), catalog, require=require, suite=suite, as_json=json)


@app.command
def unprotect(
    collections: list[str],
    /,
    *,
    catalog: CatalogPath = None,
    yes: Annotated[bool, Parameter(name="--yes", negative="", help="Write the values in clear.")] = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Bring protected values of collections back in clear (DATASET/COLLECTION ...), for those that leave the scheme."""
    from fangxin.flows.cli.protect import unprotect as work

    return work(_home(home), catalog, collections, yes=yes, as_json=json)


@app.command
def locate(
    *,
    catalog: CatalogPath = None,
    identity: Identities = None,
    subjects: Subjects = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Show where people's rows are, and why; changes nothing."""
    from fangxin.flows.cli.erase import locate as work

    return work(_home(home), catalog, identity or [], subjects, now=now, as_json=json)


@app.command
def erase(
    *,
    catalog: CatalogPath = None,
    identity: Identities = None,
    subjects: Subjects = None,
    export: Annotated[Path | None, Parameter(name="--export")] = None,
    approval: Annotated[
        list[Path] | None, Parameter(name="--approval", negative="", help="An officer's signature; repeatable.")
    ] = None,
    plan: Annotated[Path | None, Parameter(name="--plan", help="Write what officers have to sign, and wait.")] = None,
    canaries: Annotated[
        list[Path] | None, Parameter(name="--canaries", negative="", help="An auditor's seal; repeatable.")
    ] = None,
    require: Annotated[str | None, Parameter(name="--require", help="overwrite: refuse media that cannot.")] = None,
    wipe_free_space: Annotated[
        str | None,
        Parameter(name="--wipe-free-space", help="fill or discard: also work on what engines freed before (root)."),
    ] = None,
    yes: Annotated[bool, Parameter(name="--yes", negative="", help="Approve the plan.")] = False,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Erase people: locate, export, destroy keys, overwrite, validate, publish."""
    from fangxin.flows.cli.erase import erase as work

    return work(
        _home(home),
        catalog,
        identity or [],
        subjects,
        export=export,
        approvals=approval or [],
        plan=plan,
        canaries=canaries or [],
        require=require,
        wipe_free_space=wipe_free_space,
        yes=yes,
        now=now,
        as_json=json,
    )


@app.command
def resume(
    batch: str | None = None,
    /,
    *,
    as_it_stands: Annotated[
        str | None,
        Parameter(name="--as-it-stands", help="A reason code: end a batch whose look FAILED with what can be shown."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Go on after a crash; running it twice changes nothing."""
    from fangxin.flows.cli.erase import resume as work

    return work(_home(home), batch, as_it_stands=as_it_stands, as_json=json)


@app.command
def scan(
    paths: list[Path],
    /,
    *,
    identity: Identities = None,
    engine: Annotated[
        Literal["quickest", "ahocorasick", "hyperscan"],
        Parameter(name="--engine", help="Which automaton searches; same hits. hyperscan needs the extra fast."),
    ] = "quickest",
    home: Home = None,
    json: Json = False,
) -> int:
    """Search files and folders for every byte form of identities; values are never printed."""
    from fangxin.flows.cli.scan import scan as work

    return work(paths, identity or [], engine=engine, home=_home(home), as_json=json)


@report_app.default
def report(
    *,
    first: Annotated[str, Parameter(name="--from", help="The first day, such as 2026-11-01.")],
    last: Annotated[str, Parameter(name="--to", help="The last day.")],
    out: Annotated[Path | None, Parameter(name="--out", help="A folder for copies of the pages.")] = None,
    preview: Annotated[
        bool, Parameter(name="--preview", negative="", help="Unsigned, into --out, not logged.")
    ] = False,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Publish the report of a period that is over: HTML, signed PDF, JSON, Parquet; once, its digests in the ledger."""
    from fangxin.flows.cli.report import report as work

    return work(_home(home), catalog, first, last, out=out, preview=preview, now=now, as_json=json)


@report_app.command
def incident(
    *,
    dataset: Annotated[str, Parameter(name="--dataset", help="A dataset of the catalog.")],
    at: Annotated[str, Parameter(name="--at", help="The moment, ISO 8601.")],
    record: Annotated[bool, Parameter(name="--record", negative="", help="Put it on record in the ledger.")] = False,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """List the requests that an incident affects, by receipt, with owner, executor, approvers and program."""
    from fangxin.flows.cli.report import incident as work

    return work(_home(home), catalog, dataset, at, record=record, now=now, as_json=json)


@certificate_app.command
def validate(
    certificates: list[str] | None = None,
    /,
    *,
    officer: str | None = None,
    key: Annotated[Path | None, Parameter(name="--key", help="The officer's NAME.key.")] = None,
    out: Annotated[Path | None, Parameter(name="--out", help="Only sign, into this folder.")] = None,
    signed: Annotated[
        list[Path] | None, Parameter(name="--signed", negative="", help="What an officer signed elsewhere; repeatable.")
    ] = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Accept certificates as an officer (by number, or as JSON files): signature, new pages, an entry in the ledger."""
    from fangxin.flows.cli.report import validate as work

    return work(
        _home(home), certificates or [], officer=officer, key=key, out=out, signed=signed or [], now=now, as_json=json
    )


@certificate_app.command(name="print")
def print_certificate(number: str, /, *, out: Path, home: Home = None, now: Now = None, json: Json = False) -> int:
    """Print a certificate as a PDF, signed now by the operator; it carries the JSON that the ledger knows."""
    from fangxin.flows.cli.report import print_certificate as work

    return work(_home(home), number, out=out, now=now, as_json=json)


@canary_app.command
def draft(
    file: Path,
    /,
    *,
    people: int = 5,
    kind: Annotated[list[str] | None, Parameter(name="--kind", negative="", help="Identity kind; repeatable.")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Make people up, for an auditor to plant and to seal; needs no home."""
    from fangxin.flows.cli.canary import draft as work

    _home(home)
    return work(file, people=people, kinds=kind or ["phone_number", "email"], as_json=json)


@canary_app.command
def seal(file: Path, /, *, out: Path, home: Home = None, json: Json = False) -> int:
    """Write the seal of an auditor's file: the commitment that is given away before the run; needs no home."""
    from fangxin.flows.cli.canary import seal as work

    _home(home)
    return work(file, out, as_json=json)


@canary_app.command(name="open")
def open_canaries(file: Path, /, *, home: Home = None, json: Json = False) -> int:
    """Open an auditor's file once the run is validated: what became of every placement."""
    from fangxin.flows.cli.canary import unseal as work

    return work(_home(home), file, as_json=json)


@canary_app.command
def unopened(
    batch: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name="--yes", negative="", help="Publish without the auditor.")] = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Publish a batch whose auditor does not come back: its certificates say that the seal was never opened."""
    from fangxin.flows.cli.canary import unopened as work

    return work(_home(home), batch, yes=yes, as_json=json)


@app.command
def verify(
    path: Path,
    /,
    *,
    trust: Annotated[
        str | None, Parameter(name="--trust", help="The log's key, or a folder of keys, from outside the package.")
    ] = None,
    officer: Annotated[
        list[str] | None, Parameter(name="--officer", negative="", help="An officer's key; repeatable.")
    ] = None,
    since: Annotated[Path | None, Parameter(name="--since", help="An older checkpoint.")] = None,
    quorum: Annotated[int | None, Parameter(name="--quorum", help="So many witnesses must have cosigned.")] = None,
    challenge: Annotated[Path | None, Parameter(name="--challenge", help="The challenge that it answers.")] = None,
    secret: Annotated[Path | None, Parameter(name="--secret", help="A receipt secret: which entries are mine.")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Check an auditor's package; inside its own home the home's keys are trusted."""
    from fangxin.flows.cli.scan import verify as work

    more = {"--since": since, "--quorum": quorum, "--challenge": challenge, "--secret": secret}
    return work(path, trust=trust, officers=officer or [], more=more, home=_home(home), as_json=json)


@app.command
def package(
    requests: list[str] | None = None,
    /,
    *,
    out: Path,
    period: Annotated[str | None, Parameter(name="--period", help="2026, 2026-Q3, 2026-11, FIRST_LAST.")] = None,
    challenge: Annotated[Path | None, Parameter(name="--challenge", help="What an auditor asks for.")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Write an auditor's package: of requests, of a period, or as the answer to a challenge."""
    from fangxin.flows.cli.evidence import package as work

    return work(_home(home), requests or [], period=period, challenge=challenge, out=out, as_json=json)


@app.command
def challenge(
    *,
    checkpoint: Path,
    log: str,
    out: Path,
    count: int | None = None,
    period: str | None = None,
    receipt: Annotated[list[Path] | None, Parameter(name="--receipt", negative="")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Ask for proofs as an auditor: of receipts, or of some requests of a period that nobody but chance picks."""
    from fangxin.flows.cli.evidence import challenge as work

    _home(home)
    return work(
        checkpoint=checkpoint, log=log, count=count, period=period, receipts=receipt or [], out=out, as_json=json
    )


@app.command
def witness(
    place: str | None = None,
    /,
    *,
    state: Path,
    name: Annotated[str | None, Parameter(name="--name", help="Start a new witness of this name.")] = None,
    log: Annotated[str | None, Parameter(name="--log", help="A log's key, got from outside.")] = None,
    out: Annotated[Path | None, Parameter(name="--out", help="Write the cosignature here.")] = None,
    serve: Annotated[str | None, Parameter(name="--serve", help="HOST:PORT: answer add-checkpoint.")] = None,
    last: Annotated[str | None, Parameter(name="--last", help="ORIGIN: write what was cosigned last.")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Witness a ledger (a folder, a package or a URL): it must extend what was seen last; then cosign it."""
    from fangxin.flows.cli.evidence import witness as work

    _home(home)
    return work(place, state=state, name=name, log=log, out=out, serve=serve, last=last, as_json=json)


@ledger_app.command(name="check")
def ledger_check(*, home: Home = None, json: Json = False) -> int:
    """Read every entry and tile again and compare them with the signed root."""
    from fangxin.flows.cli.evidence import ledger_check as work

    return work(_home(home), as_json=json)


@ledger_app.command(name="cosigned")
def ledger_cosigned(files: list[Path], /, *, home: Home = None, json: Json = False) -> int:
    """Take cosignatures that witnesses sent as files."""
    from fangxin.flows.cli.evidence import ledger_cosigned as work

    return work(_home(home), files, as_json=json)


@ledger_app.command(name="head")
def ledger_head(
    *,
    witnessed: Annotated[Path, Parameter(name="--witnessed", help="What `fangxin witness --last` wrote.")],
    home: Home = None,
    json: Json = False,
) -> int:
    """Put a lost head back, where a witness remembers the very checkpoint that the ledger has."""
    from fangxin.flows.cli.evidence import ledger_head as work

    return work(_home(home), witnessed, as_json=json)


@ledger_app.command(name="shard")
def ledger_shard(
    *,
    origin: Annotated[str, Parameter(name="--origin", help="Such as ledger.example.com/erasure/2027.")],
    yes: Annotated[bool, Parameter(name="--yes", negative="", help="Do it.")] = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """End this ledger and start the one that goes on from it, under a key of its own."""
    from fangxin.flows.cli.evidence import ledger_shard as work

    return work(_home(home), origin, yes=yes, as_json=json)


@ledger_app.command(name="rotate")
def ledger_rotate(
    *,
    yes: Annotated[bool, Parameter(name="--yes", negative="", help="Do it.")] = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Let a new log key take over, through one checkpoint that both sign."""
    from fangxin.flows.cli.evidence import ledger_rotate as work

    return work(_home(home), yes=yes, as_json=json)


@keys_app.command
def status(
    *,
    deep: Annotated[bool, Parameter(name="--deep", negative="", help="Open every page, judge every copy.")] = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Generation, number of living keys, holders of the root."""
    from fangxin.flows.cli.home import keys_status as work

    return work(_home(home), deep=deep, as_json=json)


@keys_app.command
def backup(
    *,
    to: Annotated[Path | None, Parameter(name="--to", help="Folder; gets a copy after each batch.")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Write a fresh copy of the vault's pages, never of the root; it opens until the next destroy batch."""
    from fangxin.flows.cli.keys import backup_vault as work

    return work(_home(home), to, as_json=json)


@keys_app.command
def backups(folders: list[Path] | None = None, /, *, home: Home = None, json: Json = False) -> int:
    """Say of each copy whether it can be restored now, and why not."""
    from fangxin.flows.cli.keys import copies_of as work

    return work(_home(home), folders or [], as_json=json)


@keys_app.command
def replicate(
    folders: list[Path] | None = None,
    /,
    *,
    off: Annotated[bool, Parameter(name="--off", negative="", help="Ship to no replica any more.")] = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Ship every write of the vault to these folders before it counts."""
    from fangxin.flows.cli.keys import replicate as work

    return work(_home(home), folders or [], off=off, as_json=json)


@keys_app.command(name="restore")
def keys_restore(
    folders: list[Path] | None = None,
    /,
    *,
    yes: Annotated[bool, Parameter(name="--yes", negative="", help="Do it.")] = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Put the best copy in the place of a lost or damaged vault; without --yes only say which."""
    from fangxin.flows.cli.keys import restore_vault as work

    return work(_home(home), folders or [], yes=yes, as_json=json)


@keys_app.command
def grow(
    keys: int,
    /,
    *,
    yes: Annotated[bool, Parameter(name="--yes", negative="", help="Do it.")] = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Move all keys into a tree for so many keys, under a new root."""
    from fangxin.flows.cli.keys import grow_vault as work

    return work(_home(home), keys, yes=yes, as_json=json)


@keys_app.command
def officer(name: str, /, *, out: Path, home: Home = None, json: Json = False) -> int:
    """Make an officer's signing key: NAME.key stays with the officer, NAME.pub is enrolled."""
    from fangxin.flows.cli.officers import officer as work

    _home(home)
    return work(name, out, as_json=json)


@keys_app.command
def officers(
    *,
    add: Annotated[list[Path] | None, Parameter(name="--add", negative="", help="NAME.pub; repeatable.")] = None,
    remove: Annotated[list[str] | None, Parameter(name="--remove", negative="", help="A name; repeatable.")] = None,
    plan: Annotated[Path | None, Parameter(name="--plan", help="Write what two present officers sign.")] = None,
    approval: Annotated[list[Path] | None, Parameter(name="--approval", negative="")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Who may approve a destruction in bulk; with --add or --remove, who may from now on."""
    from fangxin.flows.cli.officers import officers as work

    return work(_home(home), add or [], remove or [], plan=plan, approvals=approval or [], as_json=json)


@keys_app.command
def approve(
    plan: Path, /, *, officer: str, key: Path, out: Path, home: Home = None, now: Now = None, json: Json = False
) -> int:
    """Sign a plan as an officer, on the officer's own machine; no home is needed."""
    from fangxin.flows.cli.officers import approve as work

    return work(plan, officer, key, out, home=_home(home), now=now, as_json=json)


@request_app.command(name="open")
def request_open(
    *,
    catalog: CatalogPath = None,
    identity: Identities = None,
    verified: Annotated[str, Parameter(name="--verified", help="How they were verified: a code such as session.")],
    risk: Annotated[list[str] | None, Parameter(name="--risk", negative="", help="Why it is high; repeatable.")] = None,
    owner: Annotated[str | None, Parameter(name="--owner", help="The officer whose own account it is.")] = None,
    on_behalf: Annotated[str | None, Parameter(name="--on-behalf", help="Who asks: guardian, agent or heir.")] = None,
    document: Annotated[
        list[Path] | None, Parameter(name="--document", negative="", help="What they showed: only its hash is kept.")
    ] = None,
    mandate_until: Annotated[str | None, Parameter(name="--mandate-until", help="When an agent's ends.")] = None,
    key: Annotated[
        str | None, Parameter(name="--idempotency-key", help="The caller's key: the same request is taken in once.")
    ] = None,
    law: Annotated[
        list[str] | None,
        Parameter(name="--law", negative="", help="Whose clocks run beside; repeatable. Default: those of the home."),
    ] = None,
    received: Annotated[
        str | None, Parameter(name="--received", help="When it reached you, if before now; laws count from there.")
    ] = None,
    notify: Annotated[
        list[str] | None,
        Parameter(name="--notify", negative="", help="mail=@FILE, sms=@FILE or webhook=@FILE, verified; repeatable."),
    ] = None,
    receipt_only: Annotated[
        bool, Parameter(name="--receipt-only", negative="", help="Keep no address: the receipt code is enough.")
    ] = False,
    lang: Annotated[str, Parameter(name="--lang", help="zh or en: what notices are written in.")] = "zh",
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Take in a request to close an account; receipt code and restore code are shown this once."""
    from fangxin.flows.cli.closing import open_request as work

    return work(
        _home(home), catalog, identity or [], level=verified, risk=risk or [], owner=owner, on_behalf=on_behalf,
        documents=document or [], mandate_until=mandate_until, key=key, laws=law or [], received=received,
        notify=notify or [], receipt_only=receipt_only, locale=lang, now=now, as_json=json,
    )  # fmt: skip


@request_app.command(name="plan")
def request_plan(
    closure: str,
    /,
    *,
    out: Annotated[Path | None, Parameter(name="--out", help="Write what officers sign.")] = None,
    choose: Annotated[
        list[str] | None, Parameter(name="--choose", negative="", help="ITEM=FATE, the person's choice; repeatable.")
    ] = None,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Find the person, list what they hold, and show what would happen; nothing in any store is changed."""
    from fangxin.flows.cli.closing import plan as work

    return work(_home(home), catalog, closure, out, choose or [], now=now, as_json=json)


@request_app.command(name="approve")
def request_approve(
    closure: str,
    /,
    *,
    approval: Annotated[list[Path], Parameter(name="--approval", negative="", help="An officer's signature.")],
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Approve a plan by officers' signatures: one, or two for high risk."""
    from fangxin.flows.cli.closing import approve as work

    return work(_home(home), catalog, closure, approval, now, json)


@request_app.command(name="reject")
def request_reject(
    closure: str,
    /,
    *,
    officer: Annotated[str, Parameter(name="--officer", help="Who decides.")],
    reason: Annotated[str, Parameter(name="--reason", help="A code; the person sees it.")],
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Refuse a request, with a reason."""
    from fangxin.flows import closing
    from fangxin.flows.cli.closing import move as work

    return work(_home(home), catalog, now, lambda desk: closing.reject(desk, closure, officer, reason), as_json=json)


@request_app.command(name="cancel")
def request_cancel(
    closure: str, /, *, catalog: CatalogPath = None, home: Home = None, now: Now = None, json: Json = False
) -> int:
    """Withdraw a request before it is approved, for its holder."""
    from fangxin.flows import closing
    from fangxin.flows.cli.closing import move as work

    return work(_home(home), catalog, now, lambda desk: closing.cancel(desk, closure), as_json=json)


@request_app.command(name="extend")
def request_extend(
    closure: str,
    /,
    *,
    clock: Annotated[str, Parameter(name="--clock", help="The law's deadline, as the status names it.")],
    officer: Annotated[str, Parameter(name="--officer", help="Who decides.")],
    reason: Annotated[str, Parameter(name="--reason", help="A code; the person sees it.")],
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Lengthen a law's deadline by what that law allows: once, inside its first period, with a reason."""
    from fangxin.flows.cli.closing import extend as work

    return work(_home(home), catalog, closure, clock, officer, reason, now, json)


@request_app.command(name="resume")
def request_resume(
    closure: str,
    /,
    *,
    officer: Annotated[str, Parameter(name="--officer", help="Who decides.")],
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Have a closing that stalled for an officer tried again by the next run-due, in a round of its own."""
    from fangxin.flows.cli.closing import resume as work

    return work(_home(home), catalog, closure, officer, now, json)


@request_app.command(name="tell")
def request_tell(
    closure: str,
    /,
    *,
    officer: Annotated[str, Parameter(name="--officer", help="Who decides.")],
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Have consumers told again, by the next run-due, what they did not take and what was given up."""
    from fangxin.flows.cli.closing import tell as work

    return work(_home(home), catalog, closure, officer, now, json)


@request_app.command(name="seal")
def request_seal(
    closure: str, /, *, catalog: CatalogPath = None, home: Home = None, now: Now = None, json: Json = False
) -> int:
    """Seal an approved closing at once; run-due does so at the next 00:05."""
    from fangxin.flows.cli.closing import seal as work

    return work(_home(home), catalog, closure, now, json)


@request_app.command(name="restore")
def request_restore(
    closure: str,
    /,
    *,
    code: Annotated[str | None, Parameter(name="--code", help="The restore code, or @FILE.")] = None,
    answers: Annotated[
        list[Path] | None, Parameter(name="--answer", negative="", help="An officer's answers; two of them.")
    ] = None,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Bring a sealed account back, bit for bit: by the restore code, or by two officers."""
    from fangxin.flows.cli.closing import restore as work

    return work(_home(home), catalog, closure, code, answers or [], now, json)


@request_app.command(name="cases")
def request_cases(
    closure: str,
    /,
    *,
    out: Annotated[Path, Parameter(name="--out", help="A folder.")],
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Write the seal records of a closing, for two officers to answer."""
    from fangxin.flows.cli.closing import cases as work

    return work(_home(home), catalog, closure, out, now, json)


@request_app.command(name="waive")
def request_waive(
    closure: str,
    /,
    *,
    code: Annotated[str, Parameter(name="--code", help="The restore code, or @FILE.")],
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """End the days to change one's mind 24 hours from now, for the holder; low risk only."""
    from fangxin.flows.cli.closing import waive as work

    return work(_home(home), catalog, closure, code, now, json)


@request_app.command(name="hold")
def request_hold(
    closure: str,
    /,
    *,
    reason: Annotated[str, Parameter(name="--reason", help="A code: the basis.")],
    scope: Annotated[
        list[str] | None,
        Parameter(name="--scope", negative="", help="A collection or a record class; repeatable. Without: all of it."),
    ] = None,
    review: Annotated[
        str | None, Parameter(name="--review", help="When it is looked at again; else 90 days after the opening.")
    ] = None,
    lift: Annotated[bool, Parameter(name="--lift", negative="", help="Lift the hold.")] = False,
    out: Annotated[Path | None, Parameter(name="--out", help="Write what two officers sign.")] = None,
    approval: Annotated[list[Path] | None, Parameter(name="--approval", negative="")] = None,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Keep all of it, or what it names, from being erased, by two officers' signatures; or lift that."""
    from fangxin.flows.cli.closing import hold as work

    files = approval or []
    return work(
        _home(home), catalog, closure, reason, scope or [], review, out, files, lift=lift, now=now, as_json=json
    )


@request_app.command(name="decide")
def request_decide(
    closure: str | None = None,
    /,
    *,
    collection: Annotated[str | None, Parameter(name="--collection", help="Whose rows others use, too.")] = None,
    choice: Annotated[
        str | None, Parameter(name="--choice", help="unlink keeps the rows for the others; erase removes them.")
    ] = None,
    ground: Annotated[str | None, Parameter(name="--ground", help="A code: why.")] = None,
    out: Annotated[Path | None, Parameter(name="--out", help="Write what an officer signs.")] = None,
    approval: Annotated[list[Path] | None, Parameter(name="--approval", negative="")] = None,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """List rows that an officer has to decide about, or decide by an officer's signature; two where risk is high."""
    from fangxin.flows.cli.closing import decide as work

    asked, files = (collection, choice, ground), approval or []
    return work(_home(home), catalog, closure, asked, out, files, now=now, as_json=json)


@request_app.command(name="status")
def request_status(
    closure: str | None = None,
    /,
    *,
    receipt: Annotated[str | None, Parameter(name="--receipt", help="The receipt code, or @FILE.")] = None,
    lang: Annotated[str, Parameter(name="--lang", help="zh or en: what a receipt shows.")] = "zh",
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Show how a closing stands: by its id, or by its receipt code, also after the erasure."""
    from fangxin.flows.cli.closing import status as work

    return work(_home(home), catalog, closure, receipt, lang, now, json)


@request_app.command(name="claim")
def request_claim(
    *,
    receipt: Annotated[str, Parameter(name="--receipt", help="The receipt code, or @FILE.")],
    to: Annotated[str, Parameter(name="--to", help="The payment provider's token to pay to, or @FILE.")],
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Claim with the receipt code what could not be paid, before or after the erasure."""
    from fangxin.flows.cli.money import claim as work

    return work(_home(home), catalog, receipt, to, now, json)


@request_app.command(name="arrived")
def request_arrived(
    closure: str,
    /,
    *,
    amount: Annotated[str, Parameter(name="--amount", help="Such as 36.50.")],
    currency: Annotated[str, Parameter(name="--currency", help="ISO 4217, such as CNY.")],
    reference: Annotated[str, Parameter(name="--reference", help="Of this arrival; it is noted once.")],
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Note money that came in for a closed account: it waits unclaimed under the receipt code."""
    from fangxin.flows.cli.money import arrived as work

    return work(_home(home), catalog, closure, amount, currency, reference, now, json)


@request_app.command(name="export")
def request_export(
    closure: str,
    /,
    *,
    out: Annotated[Path | None, Parameter(name="--out", help="A new folder outside home and stores.")] = None,
    collected: Annotated[bool, Parameter(name="--collected", negative="", help="The holder has their copy.")] = False,
    waive: Annotated[bool, Parameter(name="--waive", negative="", help="The holder wants none.")] = False,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Write the person's data into a folder before the seal; it goes after its hours, or when regret is over."""
    from fangxin.flows.cli.money import export as work

    return work(_home(home), catalog, closure, out, collected=collected, waive=waive, now=now, as_json=json)


@request_app.command(name="items")
def request_items(
    closure: str, /, *, catalog: CatalogPath = None, home: Home = None, now: Now = None, json: Json = False
) -> int:
    """List what the account holds: what may become of each item, what it is worth, what happens without a choice."""
    from fangxin.flows.cli.money import items as work

    return work(_home(home), catalog, closure, now, json)


@request_app.command(name="offer")
def request_offer(
    closure: str,
    item: str,
    /,
    *,
    until: Annotated[str | None, Parameter(name="--until", help="At most 72 h, never beyond regret.")] = None,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Offer an item that the plan gives away; the code is shown this once."""
    from fangxin.flows.cli.money import offer as work

    return work(_home(home), catalog, closure, item, until, now, json)


@request_app.command(name="accept")
def request_accept(
    *,
    offer: Annotated[str, Parameter(name="--offer", help="The offer code, or @FILE.")],
    identity: Identities = None,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Take an offered item over, for somebody whose identities were verified."""
    from fangxin.flows.cli.money import accept as work

    return work(_home(home), catalog, offer, identity or [], now, json)


@request_app.command(name="decline")
def request_decline(
    *,
    offer: Annotated[str, Parameter(name="--offer", help="The offer code, or @FILE.")],
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """End an open offer, for whoever has its code."""
    from fangxin.flows.cli.money import decline as work

    return work(_home(home), catalog, offer, now, json)


@request_app.command(name="list")
def request_list(*, catalog: CatalogPath = None, home: Home = None, now: Now = None, json: Json = False) -> int:
    """Every closing, and what is due next."""
    from fangxin.flows.cli.closing import listing as work

    return work(_home(home), catalog, now, json)


Receipt = Annotated[str | None, Parameter(name="--receipt", help="The receipt code, or @FILE.")]
Text = Annotated[str, Parameter(name="--text", help="@FILE, or - for standard input.")]
Mask = Annotated[bool, Parameter(name="--mask", negative="", help="Mask identities in the text, instead of refusing.")]


@ticket_app.command(name="open")
def ticket_open(
    *,
    receipt: Annotated[str, Parameter(name="--receipt", help="The receipt code, or @FILE.")],
    category: Annotated[str, Parameter(name="--category", help="What it is about; `fangxin ticket list` names them.")],
    text: Text,
    role: Annotated[str, Parameter(name="--as", help="web: the holder; phone: an agent who hears the code.")] = "web",
    mask: Mask = False,
    lang: Annotated[str, Parameter(name="--lang", help="zh or en.")] = "zh",
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Ask something under a receipt code; a text with an ID, card, phone or e-mail is refused, or masked."""
    from fangxin.flows.cli.tickets import open_ticket as work

    return work(_home(home), catalog, receipt, category, text, role=role, mask=mask, locale=lang, now=now, as_json=json)


@ticket_app.command(name="answer")
def ticket_answer(
    ticket: str,
    /,
    *,
    text: Text,
    mask: Mask = False,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Answer a ticket as an officer; the first answer meets its clock."""
    from fangxin.flows.cli.tickets import answer_ticket as work

    return work(_home(home), catalog, ticket, text, mask=mask, now=now, as_json=json)


@ticket_app.command(name="list")
def ticket_list(
    *,
    receipt: Receipt = None,
    waiting: Annotated[bool, Parameter(name="--open", negative="", help="Only those that wait for an answer.")] = False,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Tickets: of a receipt code, or all; states and dates, no text."""
    from fangxin.flows.cli.tickets import listing as work

    return work(_home(home), catalog, receipt, waiting=waiting, now=now, as_json=json)


@ticket_app.command(name="show")
def ticket_show(
    ticket: str,
    /,
    *,
    receipt: Receipt = None,
    role: Annotated[str, Parameter(name="--as", help="web, phone (no text), or officer (needs no code).")] = "web",
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """One ticket with what was said."""
    from fangxin.flows.cli.tickets import show as work

    return work(_home(home), catalog, ticket, receipt, role=role, now=now, as_json=json)


@ticket_app.command(name="close")
def ticket_close(
    ticket: str,
    /,
    *,
    receipt: Receipt = None,
    role: Annotated[str, Parameter(name="--as", help="web, phone, or officer (needs no code).")] = "web",
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Close a ticket; days later the key of its texts is destroyed."""
    from fangxin.flows.cli.tickets import close as work

    return work(_home(home), catalog, ticket, receipt, role=role, now=now, as_json=json)


@app.command(name="read")
def read(
    address: str,
    /,
    *,
    out: Annotated[Path, Parameter(name="--out", help="A new Parquet file.")],
    field: Annotated[
        list[str] | None, Parameter(name="--field", negative="", help="What to read; repeatable. Default: every field.")
    ] = None,
    account: Annotated[str | None, Parameter(name="--account", help="@FILE: of this account alone.")] = None,
    catalog: CatalogPath = None,
    home: Home = None,
    now: Now = None,
    json: Json = False,
) -> int:
    """Read a collection without the rows of anybody whose account is being closed."""
    from fangxin.flows.cli.read import read as work

    return work(_home(home), catalog, address, out, field or [], account, now, as_json=json)


@app.command(name="run-due")
def run_due(*, catalog: CatalogPath = None, home: Home = None, now: Now = None, json: Json = False) -> int:
    """Do everything that is due now: reviews, seals, ends of regret, erasures; twice changes nothing."""
    from fangxin.flows.cli.closing import run_due as work

    return work(_home(home), catalog, now, json)


@report_app.command(name="sla")
def report_sla(*, catalog: CatalogPath = None, home: Home = None, now: Now = None, json: Json = False) -> int:
    """Every promise about closings: what runs, what was kept, what was broken."""
    from fangxin.flows.cli.closing import sla as work

    return work(_home(home), catalog, now, json)


@keys_app.command
def answerer(name: str, /, *, out: Path, home: Home = None, json: Json = False) -> int:
    """Make the key with which an officer answers for sealed people: NAME.key stays there, NAME.pub is enrolled."""
    from fangxin.flows.cli.closing import answerer as work

    _home(home)
    return work(name, out, as_json=json)


@keys_app.command
def answerers(
    *,
    add: Annotated[list[Path] | None, Parameter(name="--add", negative="", help="NAME.pub; repeatable.")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Who can answer for a sealed person; two are needed before anything can be sealed."""
    from fangxin.flows.cli.closing import answerers as work

    return work(_home(home), add or [], as_json=json)


@keys_app.command(name="answer")
def answer_records(folder: Path, /, *, key: Path, out: Path, home: Home = None, json: Json = False) -> int:
    """Answer seal records as an officer, on the officer's own machine; good for these records only."""
    from fangxin.flows.cli.closing import answer_records as work

    _home(home)
    return work(folder, key, out, as_json=json)


def _home(given: Path | None) -> Path:
    """The home in use; steps find it again through the environment, which is all that a worker shares with us."""
    from fangxin.flows.settings import home_from

    found = home_from(given)
    os.environ["FANGXIN_HOME"] = str(found)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code (contract: 0, 1, 2, 3, 4, 5, 70; 130 after Ctrl-C)."""
    words = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        try:
            result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        except CycloptsError as error:
            from fangxin.flows.cli.usage import explained

            warn(f"fangxin: {explained(error, app)}")
            return 3
        return result if isinstance(result, int) else 0

    def standing() -> str:
        from fangxin.flows.cli.erase import standing as found
        from fangxin.flows.settings import home_from

        return found(home_from(None))

    return guarded(work, standing=standing)


def run() -> None:
    """The console script."""
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what runs at exit, Prefect's server among it, is ended in peace
    sys.exit(code)
