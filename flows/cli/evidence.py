"""Commands of evidence: package, challenge, witness, and what the ledger itself needs."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fangxin.data.errors import DoesNotHold, InputError
from fangxin.flows.cli.console import answer, counted, say, warn

if TYPE_CHECKING:
    from fangxin.reports.ledger.checkpoint import VKey
    from fangxin.reports.ledger.tiles import Source
    from fangxin.reports.ledger.witness import Witness


def package(
    home: Path, requests: Sequence[str], *, period: str | None, challenge: Path | None, out: Path, as_json: bool
) -> int:
    """Write an auditor's package by request, by period, or as the answer to a challenge."""
    from fangxin.flows import gather
    from fangxin.flows.estate import alone, open_estate
    from fangxin.flows.outsiders import attest
    from fangxin.reports.challenge import Challenge

    if sum((bool(requests), period is not None, challenge is not None)) != 1:
        raise InputError("say what the package is about", hint="REQUEST..., or --period, or --challenge")
    if not out.parent.is_dir():
        raise InputError("--out: its folder does not exist", hint="make it first")
    asked = None if challenge is None else Challenge.read(_read(challenge, "--challenge"))
    with alone(home):
        estate = open_estate(home, now=datetime.now(UTC))
        if requests:
            chosen = gather.by_requests(estate, requests)
        elif asked is not None:
            chosen = gather.by_challenge(estate, asked)
        else:
            chosen = gather.by_period(estate, period or "")
        lacking = attest(estate)
        digest = gather.write(estate, out, chosen, asked)
        gather.published(estate, digest)
    document = {
        "package": str(out),
        "manifest": digest,
        "certificates": len(chosen),
        "entries": estate.ledger.size - 1,
        "lacking": lacking,
    }

    def words() -> None:
        say(f"{out}: {counted(len(chosen), 'certificate')} under a head of {document['entries']} entries")
        say(f"SHA-256 of its manifest: {digest} (logged; its receipt travels with the next package)")
        for one in lacking:
            say(f"without what the policy promises: {one} (on record)")

    answer(document, as_json=as_json, words=words)
    return 0


def challenge(
    *,
    checkpoint: Path,
    log: str,
    count: int | None,
    period: str | None,
    receipts: Sequence[Path],
    out: Path,
    as_json: bool,
) -> int:
    """Write a challenge: what the next package has to prove. For the auditor; no home is needed."""
    from fangxin.flows.gather import span
    from fangxin.reports.challenge import Challenge, of_receipts
    from fangxin.reports.ledger import checkpoint as notes

    note, key = _read(checkpoint, "--checkpoint"), log_key(log)
    head = notes.parse(note, key)
    if receipts and count is None and period is None:
        made = of_receipts([_read(one, "--receipt") for one in receipts], [key], note)
    elif count is not None and period is not None and not receipts:
        first, after = span(period)
        made = Challenge(note, (), secrets.token_bytes(32), count, first, after)
        if not made.is_sound():
            raise InputError("--count: expected a number above 0")
    else:
        raise InputError("say what is to be proved", hint="--count N --period P, or --receipt FILE")
    if out.exists():
        raise InputError("--out: exists already", hint="a challenge is made once: choose another file")
    out.write_bytes(made.document())
    document = {"challenge": str(out), "size": head.size, "entries": list(made.entries), "count": made.count}
    answer(document, as_json=as_json, words=lambda: say(f"{out}: give it to the operator, and keep a copy to verify"))
    return 0


def witness(
    place: str | None,
    *,
    state: Path,
    name: str | None,
    log: str | None,
    out: Path | None,
    serve: str | None,
    last: str | None,
    as_json: bool,
) -> int:
    """Look at a ledger as a witness: prove that it extends what was seen last, remember, cosign."""
    from fangxin.flows.outsiders import now
    from fangxin.reports.ledger.witness import Witness

    mine = Witness.create(state, name) if name is not None else Witness.load(state)
    if log is not None:
        mine.know(log_key(log))
    if serve is not None:
        return _serve(mine, serve)
    if last is not None:
        note = mine.last(last, now())
        if out is None:
            raise InputError("--last: name a file for the checkpoint", hint="--out FILE")
        out.write_bytes(note)
        answer({"witness": str(mine.vkey)}, as_json=as_json, words=lambda: say(f"{out}: what was cosigned last"))
        return 0
    if place is None:
        if name is None and log is None:
            raise InputError("name what to look at", hint="a ledger's folder, a package, or a URL; or --serve")
        answer({"witness": str(mine.vkey)}, as_json=as_json, words=lambda: say(str(mine.vkey)))
        return 0
    head, line = mine.visit(source_of(place), now())
    if out is not None:
        out.write_bytes(line)
    document = {
        "witness": str(mine.vkey),
        "origin": head.origin,
        "size": head.size,
        "root": head.root.hex(),
        "cosignature": line.decode(),
    }
    answer(document, as_json=as_json, words=lambda: say(line.decode().removesuffix("\n")))
    return 0


def ledger_check(home: Path, *, as_json: bool) -> int:
    """Read the whole ledger again, every bundle and every tile."""
    from fangxin.flows.estate import open_estate

    ledger = open_estate(home).ledger
    ledger.check()
    document = {"origin": ledger.origin, "size": ledger.size, "stamped": ledger.stamped}
    answer(document, as_json=as_json, words=lambda: say(f"{ledger.size} entries lead to the signed root"))
    return 0


def ledger_cosigned(home: Path, files: Sequence[Path], *, as_json: bool) -> int:
    """Add witnesses' lines, brought as files, to the published checkpoint."""
    from fangxin.flows.estate import alone, open_estate

    with alone(home):
        ledger = open_estate(home).ledger
        count = 0
        for one in files:
            count = ledger.witnessed(_read(one, "cosignature"))
    document = {"origin": ledger.origin, "size": ledger.size, "witnesses": count}
    answer(document, as_json=as_json, words=lambda: say(f"{count} witness(es) cosigned this head"))
    return 0


def ledger_head(home: Path, witnessed: Path, *, as_json: bool) -> int:
    """Put a lost or older head back, where the witness's last checkpoint is the one that the ledger has."""
    from fangxin.flows.estate import alone, open_estate
    from fangxin.reports.ledger.log import Ledger

    with alone(home):
        estate = open_estate(home)
        ledger = Ledger.reseat(
            home / "ledger",
            head=estate.settings.ledger_head,
            keys=estate.signing,
            seen=_read(witnessed, "--witnessed"),
        )
    document = {"origin": ledger.origin, "size": ledger.size, "stamped": ledger.stamped}
    answer(document, as_json=as_json, words=lambda: say(f"the head is back in its second place: {ledger.size} entries"))
    return 0


def ledger_shard(home: Path, origin: str, *, yes: bool, as_json: bool) -> int:
    """End this ledger and start the one that goes on from it."""
    from fangxin.flows.estate import alone, open_estate
    from fangxin.flows.shards import start_shard

    if not yes:
        raise InputError("nothing was changed", hint="--yes ends this ledger; tell your witnesses and auditors of it")
    with alone(home):
        ledger = start_shard(open_estate(home), origin)
    document = {"origin": ledger.origin, "size": ledger.size, "log": str(ledger.vkeys[0])}
    answer(document, as_json=as_json, words=lambda: say(f"{ledger.origin} goes on; its key is {ledger.vkeys[0]}"))
    return 0


def ledger_rotate(home: Path, *, yes: bool, as_json: bool) -> int:
    """Put a new log key in the place of the present one."""
    from fangxin.flows.estate import alone, open_estate

    if not yes:
        raise InputError(
            "nothing was changed", hint="--yes makes a new log key; tell your witnesses and auditors of it"
        )
    with alone(home):
        estate = open_estate(home)
        index = estate.ledger.rotate(estate.minute)
    vkey = (home / "keys" / "log.vkey").read_text("ascii").strip()
    document = {"entry": index, "log": vkey}
    answer(document, as_json=as_json, words=lambda: say(f"entry {index}: from now on the log signs as {vkey}"))
    return 0


def log_key(given: str) -> VKey:
    """A log's verifier key, given as text or as a file that holds it."""
    from fangxin.reports.ledger.checkpoint import parse_vkey

    text = given
    if "+" not in given or Path(given).is_file():
        text = _read(Path(given), "--log").decode("ascii", "replace").removesuffix("\n")
    try:
        return parse_vkey(text)
    except DoesNotHold as error:
        raise InputError(f"--log: {error.message}", hint="the one line of a log.vkey, got from outside") from None


def source_of(place: str) -> Source:
    """How to read a ledger's files: from a URL, a package's zip, a home, or a folder with `checkpoint` and `tile/`."""
    if place.startswith(("http://", "https://")):
        return _from_url(place.rstrip("/"))
    path = Path(place)
    if path.is_file():
        return _from_zip(path)
    if not path.is_dir():
        raise InputError("no such ledger", hint="a ledger's folder, a home, a package, or a URL")
    folder = path / "ledger" if (path / "ledger" / "checkpoint").is_file() else path
    return lambda name: (folder / name).read_bytes()


def _from_zip(path: Path) -> Source:
    import zipfile

    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError):
        raise InputError(f"{path.name}: neither a folder nor a package") from None

    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        except (KeyError, zipfile.BadZipFile):
            raise FileNotFoundError(name) from None

    return read


def _from_url(url: str) -> Source:
    import httpx

    from fangxin.data.errors import Unavailable

    def read(name: str) -> bytes:
        try:
            reply = httpx.get(f"{url}/{name}", timeout=20.0)
        except httpx.HTTPError:
            raise Unavailable("the ledger's URL does not answer", hint="nothing was cosigned; try again") from None
        if reply.status_code == 404:
            raise FileNotFoundError(name)
        if reply.status_code != 200:
            raise Unavailable(f"the ledger's URL answered {reply.status_code}", hint="nothing was cosigned")
        return reply.content

    return read


def _serve(mine: Witness, address: str) -> int:
    """Answer `add-checkpoint` until interrupted."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from fangxin.flows.outsiders import now
    from fangxin.reports.ledger import exchange

    class Handler(BaseHTTPRequestHandler):
        timeout = 20

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != exchange.PATH or not length.isdigit() or int(length) > exchange.MOST:
                self.send_error(404 if self.path != exchange.PATH else 400)
                return
            status, kind, body = exchange.answer(mine, self.rfile.read(int(length)), now())
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            """Says nothing: who asked is nobody's business."""

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError("--serve: expected HOST:PORT", hint="127.0.0.1:8462")
    with ThreadingHTTPServer((host, int(port)), Handler) as server:
        warn(f"witness {mine.name} listens on {host}:{server.server_address[1]}{exchange.PATH}; Ctrl-C ends it")
        server.serve_forever()
    return 0


def _read(path: Path, option: str) -> bytes:
    try:
        if not path.is_file():
            raise InputError(f"{option}: no such file", hint=f"{path.name} is not a plain file")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{option}: cannot be read ({error.strerror})") from None
