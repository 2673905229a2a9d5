"""Commands of the closing of an account: request ..., run-due, report sla, and the officers' answering keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fangxin.data.errors import InputError, NotAllowed, told, unread
from fangxin.flows.cli.console import answer, counted, incomplete, say, table, warn
from fangxin.flows.cli.desk import at_home, read_code

if TYPE_CHECKING:
    from datetime import datetime

    from fangxin.data.closures.store import Closure
    from fangxin.data.vocabulary import Identity
    from fangxin.flows.desk import Desk
    from fangxin.flows.notices import Contact

Document = dict[str, Any]  # Any: JSON


def open_request(
    home: Path,
    catalog: Path | None,
    identities: Sequence[str],
    *,
    level: str,
    risk: Sequence[str],
    owner: str | None,
    on_behalf: str | None,
    documents: Sequence[Path],
    mandate_until: str | None,
    key: str | None,
    laws: Sequence[str],
    received: str | None,
    notify: Sequence[str],
    receipt_only: bool,
    locale: str,
    now: str | None,
    as_json: bool,
) -> int:
    """Take in a request; its two codes are shown this once."""
    from fangxin.flows.behalf import shown
    from fangxin.flows.closing import open_closure
    from fangxin.flows.settings import is_rehearsal
    from fangxin.flows.subjects import read_identities

    with at_home(home, catalog, now) as desk:
        people, plain = read_identities(identities, desk.estate.catalog)
        if plain and not is_rehearsal(home):
            warn("an identity on the command line stays in the shell's history: use --identity KIND=@FILE")
        if on_behalf is None and (documents or mandate_until):
            raise InputError("--document, --mandate-until: only with --on-behalf guardian, agent or heir")
        until = _moment(mandate_until, "--mandate-until") if mandate_until else None
        behalf = shown(on_behalf, documents, level=level, until=until, now=desk.now) if on_behalf else None
        since = _moment(received, "--received") if received else None
        contact = _contact(home, people, notify, receipt_only=receipt_only, locale=locale)
        made = open_closure(
            desk, people, level=level, risk=risk, owner=owner, behalf=behalf, key=key, laws=laws, received=since,
            contact=contact,
        )  # fmt: skip
        told_by = [kind for kind, _address in contact.channels] if made.restore else []
        document = {
            "closure": made.id,
            "new": bool(made.receipt) and not made.replayed,
            "replayed": made.replayed,
            "receipt_code": made.receipt or None,
            "restore_code": made.restore or None,
            "told_by": told_by,
        }

    def words() -> None:
        if made.replayed:
            say(f"{made.id} was opened under this key before; receipt code  {made.receipt or 'is over'}")
            say("The restore code was shown then; nobody keeps it. Two officers bring an account back without it.")
            return
        if not made.receipt:
            say(f"{made.id}: a closing of this account is live; its codes were shown when it was opened")
            return
        say(f"{made.id} is opened.")
        say(f"receipt code  {made.receipt}  opens the status, for ever")
        say(f"restore code  {made.restore}  brings the account back while it is sealed")
        say("Both are shown this once. Signing in restores nothing.")
        say("After the erasure nobody can give you a lost receipt code again.")
        say(f"Every move is told by: {', '.join(told_by) or 'the receipt alone'}.")

    answer(document, as_json=as_json, words=words)
    return 0


def _contact(
    home: Path, people: Sequence[Identity], notify: Sequence[str], *, receipt_only: bool, locale: str
) -> Contact:
    """Whom to tell: every address that verified the person and that this home can reach, and those given besides."""
    from fangxin.flows import channels
    from fangxin.flows.notices import Contact

    if receipt_only and notify:
        raise InputError("--notify with --receipt-only: one or the other")
    if locale not in ("zh", "en"):
        raise InputError(f"--lang: expected zh or en; found {locale}")
    known = channels.Channels.load(home)
    given = [channels.given(one, read_code) for one in notify]
    missing = [kind for kind, _address in given if kind not in known.by_kind]
    if missing:
        raise InputError(f"--notify {missing[0]}: this home has no such channel", hint="channels.toml names them")
    found = [] if receipt_only else [*channels.reachable(known, people), *given]
    return Contact(tuple(dict.fromkeys(found)), locale)


def plan(
    home: Path, catalog: Path | None, closure: str, out: Path | None, ticks: Sequence[str], *, now: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Make the plan if there is none, show it, and write what officers sign."""
    from fangxin.flows.closing import current, make_plan, paper
    from fangxin.flows.standing import status

    with at_home(home, catalog, now) as desk:
        one = current(desk, closure)
        if one.state == "preflight":
            one = make_plan(desk, closure, _choices(ticks))
        elif ticks:
            raise NotAllowed("the plan of this closing stands", hint="cancel it and open it anew to choose otherwise")
        if out is not None:
            if out.exists():
                raise InputError(f"{out}: is there already", hint="name a new file for what officers sign")
            out.write_text(paper(desk, closure).canonical(), "utf-8")
        document = status(desk, one)
    _tell(document, as_json=as_json)
    return 0


def _choices(ticks: Sequence[str]) -> list[Any]:  # Any: Choice
    from fangxin.flows.settlement import Choice

    found = []
    for one in ticks:
        item, _, fate = one.partition("=")
        if not item or not fate:
            raise InputError("--choose: expected ITEM=FATE", hint="`fangxin request plan` lists the items")
        found.append(Choice(item, fate, tick=fate == "lapse"))
    return found


def move(home: Path, catalog: Path | None, now: str | None, work: Callable[[Desk], Closure], *, as_json: bool) -> int:
    """Make one move and show how the closing stands."""
    from fangxin.flows.standing import status

    with at_home(home, catalog, now) as desk:
        document = status(desk, work(desk))
    _tell(document, as_json=as_json)
    return 0


def approve(
    home: Path, catalog: Path | None, closure: str, files: Sequence[Path], now: str | None, as_json: bool
) -> int:
    """Take officers' signatures."""
    from fangxin.flows import closing
    from fangxin.flows.cli.erase import read_approvals

    given = read_approvals(files)
    return move(home, catalog, now, lambda desk: closing.approve(desk, closure, given), as_json=as_json)


def hold(
    home: Path, catalog: Path | None, closure: str, reason: str, scope: Sequence[str], review: str | None,
    out: Path | None, files: Sequence[Path], *, lift: bool, now: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Write what two officers sign, or carry out what they signed."""
    from fangxin.flows import holds
    from fangxin.flows.cli.erase import read_approvals

    if lift and scope:
        raise InputError("--lift ends every hold of a closing", hint="leave --scope out")
    until = _moment(review, "--review") if review else None
    given = holds.Asked(reason, tuple(scope), until, lift)
    if not files:
        if out is None or out.exists():
            raise InputError("--out: expected a new file for what two officers sign", hint="then --approval twice")
        with at_home(home, catalog, now) as desk:
            grant = holds.paper(desk, closure, given)
        out.write_text(grant.canonical(), "utf-8")
        raise NotAllowed(f"{out}: have it signed by two officers", hint="then --approval FILE --approval FILE")
    signed = read_approvals(files)
    return move(home, catalog, now, lambda desk: holds.hold(desk, closure, given, signed), as_json=as_json)


def decide(
    home: Path, catalog: Path | None, closure: str | None, asked: tuple[str | None, str | None, str | None],
    out: Path | None, files: Sequence[Path], *, now: str | None, as_json: bool,
) -> int:  # fmt: skip
    """List what officers have to decide; write what they sign (collection, choice, ground), or carry it out."""
    from fangxin.flows import decisions
    from fangxin.flows.cli.erase import read_approvals

    if not any(asked):
        return _pending(home, catalog, closure, now, as_json=as_json)
    collection, choice, ground = asked
    if closure is None or collection is None or choice is None or ground is None:
        raise InputError("a decision names its closing, --collection, --choice and --ground")
    given = decisions.Asked(collection, choice, ground)
    if not files:
        if out is None or out.exists():
            raise InputError("--out: expected a new file for what officers sign", hint="then --approval")
        with at_home(home, catalog, now) as desk:
            grant = decisions.paper(desk, closure, given)
        out.write_text(grant.canonical(), "utf-8")
        raise NotAllowed(f"{out}: have it signed by an officer", hint="`fangxin keys approve`, then --approval FILE")
    signed = read_approvals(files)
    return move(home, catalog, now, lambda desk: decisions.decide(desk, closure, given, signed), as_json=as_json)


def _pending(home: Path, catalog: Path | None, closure: str | None, now: str | None, *, as_json: bool) -> int:
    from fangxin.flows import decisions

    with at_home(home, catalog, now, alone=False) as desk:
        found = decisions.pending(desk, None if closure is None else [desk.closures.get(closure)])
    document = {"pending": [asdict(one) for one in found]}

    def words() -> None:
        if not found:
            say("nothing waits for an officer to decide")
            return
        table(("closing", "collection", "why", "rows", "others"),
              [(p.closure, p.collection, p.reason, str(p.rows), str(p.others)) for p in found])  # fmt: skip

    answer(document, as_json=as_json, words=words)
    return 0


def extend(
    home: Path, catalog: Path | None, closure: str, clock: str, officer: str, reason: str, now: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Lengthen a law's clock, once and inside its first period."""
    from fangxin.flows import alarms
    from fangxin.flows.closing import current

    return move(
        home, catalog, now, lambda desk: alarms.extend(desk, current(desk, closure), clock, reason, officer),
        as_json=as_json,
    )  # fmt: skip


def resume(home: Path, catalog: Path | None, closure: str, officer: str, now: str | None, as_json: bool) -> int:
    """Have a stalled closing tried again."""
    from fangxin.flows import ending

    return move(home, catalog, now, lambda desk: ending.resume(desk, closure, officer), as_json=as_json)


def tell(home: Path, catalog: Path | None, closure: str, officer: str, now: str | None, as_json: bool) -> int:
    """Have consumers told again what was given up."""
    from fangxin.flows import consumers

    return move(home, catalog, now, lambda desk: consumers.again(desk, closure, officer), as_json=as_json)


def seal(home: Path, catalog: Path | None, closure: str, now: str | None, as_json: bool) -> int:
    """Seal an approved closing at once, not at the next hour of sealing."""
    from fangxin.flows import closing

    return move(
        home, catalog, now, lambda desk: closing.seal(desk, [closing.current(desk, closure)])[0], as_json=as_json
    )


def restore(
    home: Path, catalog: Path | None, closure: str, code: str | None, answers: Sequence[Path], now: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Bring an account back, by the code or by two officers' answers."""
    from fangxin.flows import closing

    if (code is None) == (not answers):
        raise InputError("expected either --code or two --answer", hint="--code @FILE, or --answer FILE twice")
    given: dict[bytes, list[bytes]] = {}
    for file in answers:
        for case, said in _answers(file).items():
            given.setdefault(case, []).append(said)
    word = None if code is None else read_code(code)
    return move(
        home, catalog, now, lambda desk: closing.restore(desk, closure, code=word, answers=given), as_json=as_json
    )


def waive(home: Path, catalog: Path | None, closure: str, code: str, now: str | None, as_json: bool) -> int:
    """End the days to change one's mind a day from now."""
    from fangxin.flows import closing

    word = read_code(code)
    return move(home, catalog, now, lambda desk: closing.waive(desk, closure, word), as_json=as_json)


def status(
    home: Path, catalog: Path | None, closure: str | None, receipt: str | None, locale: str, now: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """How a closing stands, by its id or by its receipt code."""
    from fangxin.flows import standing
    from fangxin.flows.receipt import by_code

    if (closure is None) == (receipt is None):
        raise InputError("expected either a closure's id or --receipt")
    with at_home(home, catalog, now, alone=False) as desk:
        found = by_code(desk, read_code(receipt), source="console") if receipt else desk.closures.get(closure or "")
        document = standing.status(desk, found, holder=bool(receipt))
    if receipt and not as_json:
        _show(document, locale)
    else:
        _tell(document, as_json=as_json)
    return 0


def listing(home: Path, catalog: Path | None, now: str | None, as_json: bool) -> int:
    """Every closing: id, state, and what it waits for."""
    from fangxin.flows.desk import request_of
    from fangxin.flows.lifecycle import State

    with at_home(home, catalog, now, alone=False) as desk:
        rows = []
        for name in desk.closures.in_state(*(s.value for s in State)):
            one = desk.closures.get(name)
            request = request_of(one)
            running = [c for c in desk.clocks(one).values() if c.met is None]
            due = min(running, key=lambda c: c.deadline, default=None)
            rows.append(
                {
                    "closure": name,
                    "state": one.state,
                    "public": request.public.value,
                    "live": one.live,
                    "next_deadline": due.deadline.strftime("%Y-%m-%dT%H:%M:%SZ") if due else None,
                }
            )
    answer(
        {"closures": rows},
        as_json=as_json,
        words=lambda: table(
            ("closure", "state", "what the person sees", "next deadline"),
            [(r["closure"], r["state"], r["public"], r["next_deadline"] or "") for r in rows],
        ),
    )
    return 0


def run_due(home: Path, catalog: Path | None, now: str | None, as_json: bool) -> int:
    """Do everything that is due; exit 2 where something waits, else the code of what failed."""
    from fangxin.flows import ending

    with at_home(home, catalog, now) as desk:
        options = {"now": desk.estate.now.isoformat()} if now is not None else {}
        done = ending.run_due(desk, options=options)
    document: Document = {
        "planned": done.planned,
        "reviewed": done.reviewed,
        "sealed": done.sealed,
        "regret_ended": done.ended,
        "erased": done.erased,
        "batches": done.batches,
        "came_back": done.back,
        "kept_until_now": done.over,
        "messages": done.messages,
        "exports_destroyed": done.exports,
        "alarms": [{"closure": a.closure, "clock": a.clock, "percent": a.percent} for a in done.alarms],
        "tickets": [{"ticket": a.ticket, "category": a.category, "percent": a.percent} for a in done.asked],
        "forgotten": done.forgotten,
        "waiting": [{"closure": name, "why": why} for name, why in sorted(done.waiting.items())],
    }

    def words() -> None:
        for what in (
            "planned",
            "reviewed",
            "sealed",
            "regret_ended",
            "erased",
            "batches",
            "came_back",
            "kept_until_now",
        ):
            say(f"{what.replace('_', ' ')}: {', '.join(document[what]) or 'none'}")
        for one in document["alarms"]:
            say(f"{one['closure']}: {one['clock']} has used {one['percent']} % of its time")
        say(f"messages sent: {done.messages}")
        for one in document["tickets"]:
            say(f"{one['ticket']}: {one['percent']} % of the time for a first answer is used up")
        for one in document["waiting"]:
            say(f"{one['closure']} waits: {one['why']}")

    answer(document, as_json=as_json, words=words)
    for error in done.errors:
        warn("\n".join(told(error)))
    if done.errors:
        return max(error.exit_code for error in done.errors)
    return incomplete("closings wait for somebody, as listed above" if done.waiting else "")


def sla(home: Path, catalog: Path | None, now: str | None, as_json: bool) -> int:
    """Every promise and every law's deadline: what runs, was kept, was broken, and how long it took."""
    from itertools import chain

    from fangxin.data.closures.tickets import Tickets
    from fangxin.flows import tickets
    from fangxin.flows.desk import clock_of
    from fangxin.flows.sla import figures

    with at_home(home, catalog, now, alone=False) as desk:
        rows = ((closure, clock_of(row["name"], row)) for closure, row in desk.closures.every_clock())
        asked = ((closure, tickets.clock_of(one)) for closure, one in Tickets(desk.closures.engine).every())
        document: Document = {
            "promise": {"name": desk.promise.name, "version": desk.promise.version, "digest": desk.promise.digest},
            **figures(chain(rows, asked), desk.now),
        }

    def words() -> None:
        header = (
            "promise",
            "running",
            "met",
            "breached",
            "provisional",
            "hours p50",
            "p99",
            "most",
            "of its time, most",
        )
        rows = []
        for c in document["clocks"]:
            hours, used = c["hours"] or {}, c["used"] or {}
            shown = [hours.get(k, "") for k in ("p50", "p99", "p100")]
            most = f"{used['p100']:.0f} %" if used else ""
            rows.append((c["name"], c["running"], c["met"], c["breached"], c["provisional"], *shown, most))
        table(header, rows)
        for one in document["breaches"]:
            say(f"broken: {one['promise']} of {one['closure']}, until {one['deadline']}")

    answer(document, as_json=as_json, words=words)
    return 1 if document["breaches"] else 0


# ---------------------------------------------------------------- answering keys


def answerer(name: str, folder: Path, *, as_json: bool) -> int:
    """Make an officer's X25519 key: NAME.key (mode 0600) and NAME.pub."""
    from fangxin.data.keys.seal import officer_key

    if not name.isidentifier():
        raise InputError("an officer's name: expected letters, digits and underscores", hint="a role such as dpo_1")
    folder.mkdir(parents=True, exist_ok=True)
    secret, public = folder / f"{name}.key", folder / f"{name}.pub"
    if secret.exists() or public.exists():
        raise InputError(f"{secret}: is there already", hint="a key is never written over; use another folder")
    private, shown = officer_key()
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(private.hex() + "\n")
    public.write_text(shown.hex() + "\n", "utf-8")
    document = {"officer": name, "key": str(secret), "public": str(public)}
    answer(document, as_json=as_json, words=lambda: say(f"{secret} stays with the officer; enrol {public}"))
    return 0


def answerers(home: Path, add: Sequence[Path], *, as_json: bool) -> int:
    """Show who can answer for a sealed person; add others. What is sealed already keeps its officers."""
    from fangxin.flows.estate import alone
    from fangxin.flows.sealing import answerers as known
    from fangxin.flows.sealing import public_of
    from fangxin.flows.settings import load

    load(home)
    with alone(home):
        folder = home / "keys" / "answerers"
        folder.mkdir(parents=True, exist_ok=True)
        for file in add:
            key = public_of(file)
            if (folder / file.name).exists():
                raise InputError(f"{file.stem}: is enrolled already", hint="another name, or remove the old file")
            if key in known(home).values():
                raise InputError("two officers have the same key", hint="each answers with a key of their own")
            (folder / f"{file.stem}.pub").write_text(key.hex() + "\n", "ascii")
        names = sorted(known(home))
    answer({"answerers": names}, as_json=as_json, words=lambda: say("answerers: " + (", ".join(names) or "none")))
    return 0


def cases(home: Path, catalog: Path | None, closure: str, out: Path, now: str | None, as_json: bool) -> int:
    """Write the seal records of a closing, for officers to answer; a record tells nobody's name."""
    from fangxin.flows.closing import current
    from fangxin.flows.sealing import seals_of

    with at_home(home, catalog, now) as desk:
        secret = desk.opened(current(desk, closure))
        out.mkdir(parents=True, exist_ok=True)
        with seals_of(desk.estate) as seals:
            for case, _ref, _codes in secret.cases:
                (out / f"{case.hex()}.seal").write_bytes(seals.body(case))
    document = {"closure": closure, "records": len(secret.cases), "folder": str(out)}
    answer(
        document,
        as_json=as_json,
        words=lambda: say(f"{counted(len(secret.cases), 'record')} in {out}: `fangxin keys answer`"),
    )
    return 0


def answer_records(folder: Path, key: Path, out: Path, *, as_json: bool) -> int:
    """An officer's answers to the records in a folder, on the officer's own machine; good for these records only."""
    import json

    from fangxin.data.keys import seal

    try:
        private = bytes.fromhex(key.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{key}: not an answering key: {unread(error)}", hint="NAME.key") from None
    found = {path.stem: seal.answer(private, path.read_bytes()).hex() for path in sorted(folder.glob("*.seal"))}
    if not found:
        raise InputError(f"{folder}: no seal records", hint="`fangxin request cases` writes them")
    out.write_text(json.dumps({"answers": found}, indent=2) + "\n", "utf-8")
    answer({"answers": len(found), "file": str(out)}, as_json=as_json, words=lambda: say(f"answered: {out}"))
    return 0


def _answers(file: Path) -> dict[bytes, bytes]:
    import json

    try:
        raw = json.loads(file.read_text("utf-8"))["answers"]
        found = {bytes.fromhex(case): bytes.fromhex(said) for case, said in raw.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not an officer's answers: {unread(error)}") from None
    if any(len(said) != 36 for said in found.values()):
        raise InputError(f"{file}: an answer has 36 bytes", hint="give the file that `fangxin keys answer` wrote")
    return found


def _moment(given: str, option: str) -> datetime:
    """An instant from the command line; one without a zone is of UTC."""
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        raise InputError(f"{option}: expected an ISO 8601 time such as 2026-12-31T00:00:00+08:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _remarks(clock: Document) -> str:
    """What a person has to know of a date besides the date."""
    said = [
        "broken" if clock["breached"] else "",
        "a draft of a law" if clock["draft"] else "",
        "provisional, at the earliest" if clock["provisional"] else "",
        f"lengthened: {clock['extended']}" if clock["extended"] else "",
        f"first told {clock['first_told']}" if clock["first_told"] else "",
    ]
    return "; ".join(filter(None, said))


def _show(document: Document, locale: str) -> None:
    """The receipt as the person reads it."""
    from fangxin.flows.refund import Money

    zh = locale == "zh"
    say(document["says"][locale])
    for number, one in enumerate(document["steps"], 1):
        say(
            f"{ {'done': '✓', 'now': '▶', 'ahead': '·', 'stopped': '■'}[one['state']] } {number}  {one['says'][locale]}"
        )
    say(f"{'时间均为' if zh else 'times are those of'} {document['zone']}")
    if document["refused"]:
        say(f"{'原因' if zh else 'reason'}: {document['refused']}")
    if document["hold"] != "none":
        say("依法律要求，删除暂缓。" if zh else "A legal duty keeps it from being erased for now.")
    for one in document["owed"]:
        where = {"escrow": ("待领取", "kept for you"), "unclaimed": ("待领取", "kept for you")}
        told = where.get(one["where"], ("应付", "to be paid") if one["where"] == "owed" else ("已付", "paid"))
        say(f"{told[0] if zh else told[1]}: {Money(one['minor'], one['currency'])}")
    if document["certificate"]:
        say(f"{'证书' if zh else 'certificate'}: {document['certificate']}")
    for one in document["tickets"]:
        say(f"{'工单' if zh else 'ticket'} {one['ticket']}: {one['category']}, {one['state']}")


def _worth(item: Document) -> str:
    from fangxin.flows.refund import Money

    return str(Money(item["minor"], item["currency"])) if item["minor"] else ""


WHERE = {"owed": "to be paid", "escrow": "kept for the holder", "unclaimed": "kept for the holder"}  # accounts of books


def _tell(document: Document, *, as_json: bool) -> None:
    from fangxin.flows.refund import Money

    def words() -> None:
        say(f"{document['closure']}: {document['public']} ({document['state']})")
        if document["plan_digest"]:
            say(f"plan {document['plan_digest']}; {'high' if document['high_risk'] else 'low'} risk; "
                f"approved by {document['approvals']}")  # fmt: skip
        if document["restore_until"]:
            say(f"may be restored until {document['restore_until']}")
        rows = [(c["name"], c["deadline"], c["met"] or "", _remarks(c)) for c in document["clocks"]]
        if rows:
            table(("promise or law", "deadline", "kept", ""), rows)
        if document["items"]:
            table(("item", "kind", "what becomes of it", "amount", "worth"),
                  [(i["id"], i["kind"], i["fate"], i["amount"], _worth(i))
                   for i in document["items"]])  # fmt: skip
        if document["collections"]:
            table(("collection", "rows", "sealed", "the rest"),
                  [(c["collection"], " ".join(f"{k}:{v}" for k, v in sorted(c["fates"].items())),
                    ",".join(c["sealed"]) or "-", c["otherwise"]) for c in document["collections"]])  # fmt: skip
        for one in document["owed"]:
            say(f"{WHERE.get(one['where'], one['where'])}: {Money(one['minor'], one['currency'])}")
        if document["unclaimed"]:
            say(f"unclaimed; `fangxin request claim` until {document['unclaimed']['until']} "
                f"({document['unclaimed']['ground']})")  # fmt: skip
            say(document["unclaimed"]["text"]["zh"])
            say(document["unclaimed"]["text"]["en"])
        if document["kept"]:
            stays = ", ".join(f"{address}: {n}" for address, n in sorted(document["kept"]["rows"].items()))
            say(f"kept ({stays}) until {document['kept']['next'] or 'an officer decides'}")
        if document["delayed"]:
            say(f"delayed since {document['delayed']['since']}: {document['delayed']['what']}")
        for one in document["consumers"]:
            say(f"{one['name']} ({one['last']}): {one['confirmed'] or one['state'].replace('_', ' ')}")
        if document["certificate"]:
            say(f"certificate {document['certificate']}")

    answer(document, as_json=as_json, words=words)
