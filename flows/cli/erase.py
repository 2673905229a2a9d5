"""Commands that find and erase people: locate, erase, resume."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fangxin.data.errors import FangxinError, InputError, NotAllowed, told, unread
from fangxin.data.importing import uncollected
from fangxin.data.vocabulary import Cohort, Identity, Subject
from fangxin.flows.cli.console import answer, counted, incomplete, say, table, warn

Cohorts = list[tuple[Identity, ...]]


def locate(
    home: Path,
    catalog: Path | None,
    identities: Sequence[str],
    subjects: str | None,
    *,
    now: str | None,
    as_json: bool,
) -> int:
    """Show counts and paths per subject, never a value. Exit 4 where a guard halted, 2 where a unit is missing."""
    from fangxin.checks.readiness import readable
    from fangxin.flows.estate import open_estate
    from fangxin.flows.locate import find
    from fangxin.flows.settings import clock, load

    estate = open_estate(home, catalog, clock(load(home), now))
    people = _people(estate, identities, subjects)
    readable(estate.catalog, estate.stores)
    missing = False
    for store in estate.stores:
        for one in store.collections:
            if not store.units(one):
                missing = True
                warn(f"{one.where}: {one.address}: nothing to look into: no unit below {store.name} fits its glob")
    found = find(estate, Cohort(tuple(Subject(str(n), p) for n, p in enumerate(people))))
    document = located(found, people)

    def words() -> None:
        for one in document["subjects"]:
            say(f"subject {one['ref']}")
            table(("collection", "edge", "units", "rows", "via"), _by_collection(one["traces"]))
            for s in one["shared"]:
                rows, others = counted(s["rows"], "row"), counted(s["others"], "other")
                say(f"shared: {s['dataset']}/{s['collection']}: {rows} with {others}")
            _tell_doubts(one)
            say()
        for halt in document["halts"]:
            why = _HALTS.get(halt["guard"], halt["guard"])
            say(f"subject {halt['ref']}: the walk halted at {halt['collection']}: {why}")

        say(_WHERE_LOOKED)

    answer(document, as_json=as_json, words=words)
    if document["halts"]:
        return 4
    return incomplete("collections named above have no file to look into" if missing else "")


def _tell_doubts(subject: dict[str, Any]) -> None:  # Any: JSON
    """Say what a person should look at before somebody is erased: nobody found, or several accounts."""
    if not subject["traces"]:
        say(f"subject {subject['ref']}: nobody has these identities in any collection")
    if subject["accounts"] > 1:
        say(
            f"subject {subject['ref']}: the identities given lead to {subject['accounts']} accounts, none of them to"
            " all: look whether they are one person's, or a column of the file has shifted"
        )


_WHERE_LOOKED = (
    "locate looks only where the catalog points; `fangxin scan FOLDER --identity KIND=@FILE` searches any file, and an"
    " erasure scans all of the catalog's root and what `watch` names"
)

_HALTS = {
    "merge": "it also reaches the account of somebody else, or of another line; if they are one person, give their"
    " identities in one line (or set guards.merge)",
    "max_fanout": "one row leads to more others than guards.max_fanout allows",
    "max_new_identities": "it leads to more identities than guards.max_new_identities allows",
}


def _by_collection(traces: Sequence[dict[str, Any]]) -> list[tuple[object, ...]]:  # Any: JSON
    """Traces as a table for people: units and rows of each collection and edge, and the shortest path there."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in traces:
        groups.setdefault((f"{one['dataset']}/{one['collection']}", one["edge"]), []).append(one)
    return [
        (*key, len(ones), sum(t["rows"] for t in ones), min((v for t in ones for v in t["via"]), key=_steps))
        for key, ones in sorted(groups.items())
    ]


def _steps(path: str) -> tuple[int, str]:
    return path.count(" > "), path


def located(found: Any, people: Cohorts) -> dict[str, Any]:  # Any: a Closure; its module is heavy to import
    """The answer of `locate --json`: counts and paths, never values."""
    traces = found.traces.to_pandas()
    subjects = []
    for number, identities in enumerate(people):
        mine = traces[traces["subject"] == number]
        groups = [
            {
                **_address(collection),
                "unit": unit,
                "rows": len(rows),
                "edge": edge,
                "via": sorted(set(rows["via"])),
            }
            for (collection, unit, edge), rows in mine.groupby(["collection", "unit", "edge"])
        ]
        shared = [
            {**_address(s.collection), "rows": s.rows, "others": s.others} for s in found.shared if s.subject == number
        ]
        subjects.append(
            {
                "ref": str(number + 1),
                "identities": [{"kind": i.kind, "source": "given"} for i in identities],
                "traces": groups,
                "shared": shared,
                "accounts": max(1, found.joined.get(number, 1)) if groups else 0,
            }
        )
    halts = [{"ref": str(h.subject + 1), "guard": h.guard, "collection": h.collection} for h in found.halts]
    return {"subjects": subjects, "halts": halts, "digest": found.digest, "hops": found.hops}


def erase(
    home: Path,
    catalog: Path | None,
    identities: Sequence[str],
    subjects: str | None,
    *,
    export: Path | None,
    approvals: Sequence[Path],
    plan: Path | None,
    canaries: Sequence[Path],
    require: str | None,
    wipe_free_space: str | None,
    yes: bool,
    now: str | None,
    as_json: bool,
) -> int:
    """Erase through the Prefect flow; without --yes only the plan is shown and the answer is 4.

    With `plan` the batch is located, waits, and what officers have to sign is written to that file; with their
    `approvals` the batch that waits for them is carried out.
    """
    from fangxin.flows.estate import alone, open_estate
    from fangxin.flows.server import end_orphans
    from fangxin.flows.settings import clock, load, prepare_prefect

    if require not in (None, "overwrite"):
        raise InputError(f"--require: expected overwrite, found {require!r}")
    settings = load(home)
    moment = clock(settings, now)
    estate = open_estate(home, catalog, moment)
    options: dict[str, Any] = {"approved": True, "require": require}
    if wipe_free_space is not None:
        from fangxin.flows.freespace import allowed

        allowed(wipe_free_space)
        options["wipe_free_space"] = wipe_free_space
    if now is not None:
        options["now"] = moment.isoformat()
    if export is not None:
        options["export"] = str(export.resolve())
    if canaries:
        from dataclasses import asdict

        from fangxin.flows.sealed import read_seal

        options["canaries"] = [asdict(read_seal(path)) for path in canaries]
    if approvals:
        if identities or subjects or plan:
            raise InputError("--approval: the people are those of the plan", hint="leave out --identity and --subjects")
        if not yes:
            raise NotAllowed("nothing was touched: say that it is to be carried out", hint="add --yes")
    else:
        people = _people(estate, identities, subjects)
        if plan is not None:
            return _planned(home, estate, people, plan, options, as_json=as_json)
        if not yes:
            return _plan_only(estate, people, require=require, as_json=as_json)
    prepare_prefect(home)
    end_orphans(home)
    from fangxin.flows.erase import open_batch
    from fangxin.flows.officers import approve

    with alone(home):
        ended(estate)
        batch = approve(estate, read_approvals(approvals)) if approvals else open_batch(estate, people, options=options)
        _tell_open(estate, besides=batch)
        with uncollected():
            from fangxin.flows.deployed import run_erase

        def stopped(document: dict[str, Any]) -> None:
            answer(document, as_json=as_json, words=lambda: None)

        return tell(carried_out(home, batch, run_erase, stopped=stopped), as_json=as_json)


def carried_out(
    home: Path, batch: str, run: Callable[[str], None], *, stopped: Callable[[dict[str, Any]], None] = lambda _d: None
) -> dict[str, Any]:
    """Run a batch to its end and say what became of it; the receipt codes are read before their key dies.

    Where it does not come to its end, `stopped` is given the answer that stands: every outcome is `failed`, with the
    findings where there are any. The error goes on.
    """
    from fangxin.flows.erase import summary

    receipts = {r["request_id"]: r["receipt_code"] for r in summary(home, batch)["requests"]}

    def document() -> dict[str, Any]:
        found = summary(home, batch)
        for one in found["requests"]:
            one["receipt_code"] = receipts[one["request_id"]]
        return found

    try:
        run(batch)
    except (Exception, KeyboardInterrupt) as error:
        with contextlib.suppress(Exception):  # a damaged home has no answer; what damaged it is told below
            stopped(document())
        if isinstance(error, Exception):
            with contextlib.suppress(Exception):
                if told_before := _how_it_stands(home, batch):
                    warn(told_before)
        raise
    return document()


def _tell_behind(places: dict[str, str]) -> None:
    """Say which real paths the beginnings of places stand for."""
    for name, path in places.items():
        say(
            f"{name.removesuffix('/')}/ is {path}"
            + (" (`watch` in fangxin.toml)" if name.startswith("watched-") else "")
        )


def _tell_elsewhere(found: dict[str, Any]) -> None:  # Any: JSON
    """Say what stands outside the catalog, and would stay there."""
    for one in found["seen"]:
        where = f"{one['place']}: {counted(one['hits'], 'hit')} in {one['containers']}"
        say(f"person {one['ref']}: outside the catalog, so not erased: {where}")
    for one in found["shut"]:
        say(f"outside the catalog, and cannot be examined: {one['place']}: {one['reason']}")
    _tell_behind(found["places"])
    if not found["seen"]:
        say(f"outside the catalog: {counted(found['searched'], 'file')} searched, none of these people seen there")
    else:
        say("as it is they stay there and the certificate is partial: remove these files, or add them to the catalog")
    for one in found["declared"]:
        keep = f", kept {one['keep']}" if one["keep"] else ""
        of = ", ".join(one["datasets"])
        say(f"a copy that the catalog declares, not touched: {one['kind']} {one['name']}{keep}, of {of}")


def _tell_open(estate: Any, *, besides: str) -> None:  # Any: an Estate
    """Say which other approved batches wait to be finished: the same people may be among theirs."""
    from fangxin.flows.erase import due

    for batch in (one for one in due(estate) if one != besides):
        warn(
            f"fangxin: batch {batch} is open since {estate.requests.batch(batch).created}; `fangxin resume` finishes"
            " it, or gives it up where one of its people is not there any more"
        )


def _how_it_stands(home: Path, batch: str) -> str:
    """What became of a batch that did not come to its end, "" where it had before; why is told by the error."""
    from fangxin.flows.estate import open_estate

    state = open_estate(home, home).requests.batch(batch).state
    if state == "closed":
        return ""
    if state == "abandoned":
        return (
            f"fangxin: batch {batch} is given up: nothing of it was destroyed, what it had exported is taken back."
            " Who was in it is not kept: once that is put right, name them in a new `fangxin erase`. What stopped it:"
        )
    return f"fangxin: batch {batch} stays open, `fangxin resume` goes on with it. What stopped it:"


def tell(document: dict[str, Any], *, as_json: bool) -> int:
    """Print the outcome of a batch; exit as `came_to` says."""
    answer(document, as_json=as_json, words=lambda: _outcome(document))
    return came_to([document])


def _outcome(document: dict[str, Any]) -> None:  # Any: JSON
    """What became of whom, for people."""
    rows: dict[tuple[str, str], list[int]] = {}
    for request in document["requests"]:
        for v in request["verdicts"]:
            sums = rows.setdefault((f"{v['dataset']}/{v['collection']}", v["verdict"]), [0] * 6)
            figures = (
                1,
                v["rows_found"],
                v["rows_erased"],
                v["rows_retained"],
                v["baseline_hits"],
                v["hits_after"],
            )
            rows[(f"{v['dataset']}/{v['collection']}", v["verdict"])] = [
                a + b for a, b in zip(sums, figures, strict=True)
            ]
    header = ("collection", "verdict", "people", "rows found", "erased", "retained", "hits before", "hits after")
    table(header, [(*k, *v) for k, v in sorted(rows.items())])
    say(_FIGURES)
    failed = {
        f"{v['dataset']}/{v['collection']}: {v['reason']}"
        for request in document["requests"]
        for v in request["verdicts"]
        if v["verdict"] == "FAILED"
    }
    for one in sorted(failed)[:10]:
        say(f"failed: {one}")
    if len(failed) > 10:
        say(f"... and {len(failed) - 10} more that failed")
    for request in document["requests"][:10]:
        say(
            f"{request['request_id']}: {request['outcome']}; receipt {request['receipt_code'] or '(shown before)'};"
            f" certificate {request['certificate']}"
        )
    if len(document["requests"]) > 10:
        say(f"... and {len(document['requests']) - 10} more")
    for request in document["requests"]:
        for one in request["outside"]:
            where = f"{one['place']}: {counted(one['hits'], 'hit')} in {one['containers']}"
            say(f"{request['request_id']}: outside the catalog, so not erased: {where}")
    _tell_behind(document["places"])
    for draft in document["drafts"]:
        say(f"draft of catalog entries for them {draft}")
    for sentence in document["free_space"]:
        say(f"free space: {sentence}")
    say(f"package {document['package']}")


_FIGURES = (
    "rows are counted once; a hit is one occurrence of one identity in the bytes, and a row may hold several, or an"
    " index and old pages repeat it"
)


def came_to(documents: Sequence[dict[str, Any]]) -> int:  # Any: JSON
    """The exit code of batches: 1 where a request failed, 2 where one is partial, which is said on stderr, else 0."""
    outcomes = [r["outcome"] for document in documents for r in document["requests"]]
    if any(not (one.startswith("erased") or one == "partial") for one in outcomes):
        return 1
    if "partial" not in outcomes:
        return 0
    return incomplete(
        f"partial for {outcomes.count('partial')} of {len(outcomes)}: what the catalog names is erased, but they"
        " also stand where no collection looks, or something could not be examined"
    )


def resume(home: Path, batch: str | None, *, as_it_stands: str | None = None, as_json: bool) -> int:
    """Finish what is open, from the ledger; plain functions, no Prefect needed.

    `as_it_stands`: the code of an operator's word that a batch is to end though something FAILED. One batch that fails
    does not hold up the others: every failure is told, and the highest exit code is returned.
    """
    from fangxin.flows.erase import journey
    from fangxin.flows.estate import open_estate
    from fangxin.flows.server import end_orphans

    if as_it_stands is not None:
        from fangxin.flows import plainly

        if batch is None:
            raise InputError("--as-it-stands: expected the batch that is to end", hint="name it: fangxin resume BATCH")
        plainly.code(as_it_stands, "--as-it-stands")
    end_orphans(home)
    gone = ended(open_estate(home, home))  # closed batches need no catalog
    waiting = [batch] if batch else list(open_estate(home).requests.unfinished())
    done: list[dict[str, Any]] = []
    stopped: list[dict[str, Any]] = []
    errors: list[FangxinError] = []
    for one in waiting:
        try:
            done.append(carried_out(home, one, partial(journey, word=as_it_stands), stopped=stopped.append))
        except FangxinError as error:
            errors.append(error)
        except (Exception, KeyboardInterrupt):
            answer({"batches": done + stopped, "exports_ended": gone}, as_json=as_json, words=lambda: None)
            raise

    def words() -> None:
        if not waiting:
            say("nothing is open")
        for document in done:
            _outcome(document)

    if done or stopped or not errors:
        answer({"batches": done + stopped, "exports_ended": gone}, as_json=as_json, words=words)
    for document in done:
        _tell_planted(home, document["batch"])
    for failure in errors:
        warn("\n".join(told(failure)))
    if errors:
        return max(failure.exit_code for failure in errors)
    return came_to(done)


def _tell_planted(home: Path, batch: str) -> None:
    """Say where the planted person of a batch that ended as it stands is still found."""
    from fangxin.flows.estate import estate_of
    from fangxin.flows.unplant import stays

    for place, n in stays(estate_of(batch, home), batch).items():
        warn(
            f"the made-up person that was planted stays in {place} ({counted(n, 'hit')}): no later run looks for it,"
            " remove it by hand; its addresses end in canary.invalid"
        )


def ended(estate: Any) -> int:  # Any: an Estate
    """Destroy exports whose day has come, and say so; how many files that were."""
    from fangxin.flows.estate import alone
    from fangxin.flows.exports import due_exports, end_exports

    if not due_exports(estate):
        return 0
    files = 0
    with alone(estate.settings.home):
        done = end_exports(estate)
    for one in done:
        left = f", {one.logical} of them deleted logically: the medium refused" if one.logical else ""
        warn(f"the export of {one.batch} has come to its end: {counted(one.files, 'file')} destroyed{left}")
        files += one.files
    return files


def standing(home: Path) -> str:
    """How the newest open batch of a home stands, and what to do, as the end of a sentence; names nobody."""
    from fangxin.flows.batch import is_done
    from fangxin.flows.erase import STEPS, destroy_keys
    from fangxin.flows.estate import estate_of, open_estate

    known = (home / "requests.db").is_file()
    waiting = open_estate(home).requests.unfinished() if known else ()
    if not waiting:
        return "; no erasure is open: the same command may be run again"
    estate = estate_of(waiting[-1], home)
    batch = estate.requests.batch(waiting[-1])
    *steps, last = STEPS
    step = next((s for s in steps if not is_done(estate, batch, s.__name__)), last)
    late = STEPS.index(step) >= STEPS.index(destroy_keys)
    begun = "keys may be destroyed already" if late else "nothing is destroyed yet"
    return f" at {step.__name__}, {begun}; `fangxin resume --home {shlex.quote(str(home))}` goes on"


def _planned(
    home: Path,
    estate: Any,
    people: Cohorts,
    file: Path,
    options: dict[str, Any],
    *,
    as_json: bool,  # Any: an Estate
) -> int:
    """Locate the people, and write down what officers have to sign."""
    from fangxin.flows.batch import opened, read_plan
    from fangxin.flows.cli.progress import bar
    from fangxin.flows.elsewhere import elsewhere
    from fangxin.flows.estate import alone
    from fangxin.flows.officers import plan

    if file.exists():
        raise InputError(f"{file}: is there already", hint="name a new file for the plan")
    with alone(home):
        batch, grant = plan(estate, people, options=options)
    file.write_text(grant.canonical(), "utf-8")
    beyond = elsewhere(estate, read_plan(*opened(batch), "people"), partial(bar, quiet=as_json))
    document: dict[str, Any] = {"batch": batch, "plan": str(file)}
    document |= {"plan_digest": grant.plan_hash, "expires": grant.expires, "elsewhere": beyond}

    def words() -> None:
        _tell_elsewhere(beyond)
        say(f"{batch} is located and waits; nothing was touched. {grant.count} people's keys would die.")
        say(f"plan     {file}, good until {grant.expires}")
        say("sign it  fangxin keys approve PLAN --officer NAME --key FILE --out FILE (two officers)")
        say("then     fangxin erase --approval FILE --approval FILE --yes, an hour after the second signature")

    answer(document, as_json=as_json, words=words)
    return 0


def read_approvals(files: Sequence[Path]) -> list[Any]:  # Any: Approval; its module is heavy to import
    """The approvals in these files; InputError, with the file, for anything else."""
    from fangxin.data.keys.approval import Approval

    found = []
    for file in files:
        try:
            found.append(Approval.parse(file.read_text("utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read as an approval: {unread(error)}") from None
        except InputError as error:
            raise InputError(f"{file}: {error.message}", hint=error.hint) from None
    return found


def _plan_only(estate: Any, people: Cohorts, *, require: str | None, as_json: bool) -> int:  # Any: an Estate
    """Show what would happen to whose rows, and why nothing was touched."""
    from fangxin.checks.readiness import check
    from fangxin.flows.cli.progress import bar
    from fangxin.flows.elsewhere import elsewhere
    from fangxin.flows.frames import each
    from fangxin.flows.locate import find
    from fangxin.flows.plan import decide

    check(estate.catalog, [estate.catalog_path], estate.stores, require=require)
    found = find(estate, Cohort(tuple(Subject(str(n), p) for n, p in enumerate(people))))
    plan = decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date())
    beyond = elsewhere(estate, plan, partial(bar, quiet=as_json))
    rows = [
        {"ref": str(n + 1), **_address(a), "fate": fate, "rows": len(part), "until": str(max(part["until"]))}
        for n, a, fate, part in each(plan.fates, "subject", "collection", "fate")
    ]

    def words() -> None:
        header = ("person", "collection", "rows", "what happens", "until")
        table(
            header,
            [(r["ref"], f"{r['dataset']}/{r['collection']}", r["rows"], _FATES[r["fate"]], r["until"]) for r in rows],
        )
        for one in located(found, people)["subjects"]:
            _tell_doubts(one)
        _tell_elsewhere(beyond)

    document = {**located(found, people), "plan": rows, "plan_digest": plan.digest, "elsewhere": beyond}
    answer(document, as_json=as_json, words=words)
    raise NotAllowed("nothing was touched: the plan is not approved", hint="look at it, then add --yes")


_FATES = {
    "drop": "goes",
    "blank": "is emptied",
    "retain": "kept by law",
    "keep": "kept, the catalog says why",
    "shared": "kept, others use it too",
    "mask": "somebody else's: the mention is masked",
    "mention": "somebody else's: stays, listed",
    "uncertain": "uncertain: a person must look",
}


def _people(estate: Any, identities: Sequence[str], subjects: str | None) -> Cohorts:  # Any: as above
    from fangxin.flows.subjects import read_identities, read_subjects

    if bool(identities) == bool(subjects):
        raise InputError(
            "expected either --identity or --subjects", hint="--subjects people.csv, or --identity KIND=@FILE"
        )
    if subjects:
        return read_subjects(subjects, estate.catalog)
    found, plain = read_identities(identities, estate.catalog)
    if plain and not estate.settings.rehearsal:
        warn("an identity on the command line stays in shell history and the process list; use KIND=@FILE")
    return [found]


def _address(collection: str) -> dict[str, str]:
    dataset, name = collection.split("/", 1)
    return {"dataset": dataset, "collection": name}
