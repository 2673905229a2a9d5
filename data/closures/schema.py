"""The tables of the closing process, the same for SQLite and PostgreSQL.

No name, phone, mail or address stands in any column: what is personal is sealed (`sealed`, bytes under a key of the
request's) or, for who hears of a closing by a number of their own, a keyed hash of theirs, emptied when they took it.
Everything else is opaque ids, codes, counts, whole minor units and UTC milliseconds. Events and postings are only ever
added. Alembic's migrations (`migrations/`) make the same tables step by step; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA = MetaData()
_LIVE = text("live = 1")

CLOSURE = Table(
    "closure",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("receipt", Text, nullable=False, unique=True),  # SHA-256 of the receipt code
    Column("account", Text),  # a keyed digest of the account, emptied at the end
    Column("live", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("facts", Text, nullable=False),  # JSON: the regions and guards' facts of the lifecycle
    Column("digests", Text, nullable=False),  # JSON: promise, law, catalog, clearance, terms
    Column("ref", LargeBinary, nullable=False),
    Column("sealed", LargeBinary),
    Column("opened", BigInteger, nullable=False),
    CheckConstraint("live IN (0, 1)", name="closure_live"),
)
Index("closure_one_live", CLOSURE.c.account, unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE)
Index("closure_by_state", CLOSURE.c.state)

REPLAY = Table(
    "replay",
    METADATA,
    Column("key", Text, primary_key=True),  # SHA-256 of the idempotency key
    Column("body", Text, nullable=False),  # a keyed digest of what stood under it
    Column("closure", Text, ForeignKey("closure.id"), nullable=False),
)

EVENT = Table(
    "event",
    METADATA,
    Column("closure", Text, ForeignKey("closure.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),  # JSON: codes and digests
    Column("previous", Text, nullable=False),  # SHA-256 of the event before, "" for the first
    Column("hash", Text, nullable=False),
)

CLOCK = Table(
    "clock",
    METADATA,
    Column("closure", Text, ForeignKey("closure.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("started", BigInteger, nullable=False),
    Column("deadline", BigInteger, nullable=False),
    Column("met", BigInteger),
    Column("alarmed", Integer, nullable=False, server_default="0"),  # the highest alarm that was told, in per cent
    Column("told", Text, nullable=False),  # JSON: zone, source, calendar, provisional, draft, suspended spans
)
Index("clock_due", CLOCK.c.deadline)

TIMER = Table(
    "timer",
    METADATA,
    Column("closure", Text, ForeignKey("closure.id"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("due", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),  # a code of our list: why it waits
    Column("latest", BigInteger, nullable=False),
)
Index("timer_due", TIMER.c.due)

ENTITLEMENT = Table(
    "entitlement",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("closure", Text, ForeignKey("closure.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text),
    Column("state", Text, nullable=False),  # active | offered | moved | settled
    Column("version", Integer, nullable=False),
    Column("holder", Text, nullable=False),  # opaque: whose it is now
    Column("told", Text, nullable=False),  # JSON: term, rate, expiry, source
)
Index("entitlement_of", ENTITLEMENT.c.closure)

OFFER = Table(
    "offer",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("entitlement", Text, ForeignKey("entitlement.id"), nullable=False),
    Column("state", Text, nullable=False),  # offered | accepted | declined | expired | withdrawn
    Column("version", Integer, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("receiver", Text),  # opaque; only once accepted
)
_OFFERED = text("state = 'offered'")
Index("offer_one_open", OFFER.c.entitlement, unique=True, sqlite_where=_OFFERED, postgresql_where=_OFFERED)

POSTING = Table(
    "posting",
    METADATA,
    Column("closure", Text, ForeignKey("closure.id"), nullable=False),
    Column("entry", Text, nullable=False),  # both halves of a double entry bear the same name
    Column("account", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("minor", BigInteger, nullable=False),
    UniqueConstraint("entry", "account", name="posting_once"),
)
Index("posting_of", POSTING.c.closure)

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("key", Text, primary_key=True),  # the idempotency key at the far side
    Column("closure", Text, ForeignKey("closure.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),  # JSON: amounts, opaque tokens; addresses are in `sealed`
    Column("sealed", LargeBinary),  # an address under a key of the request's, or a consumer's own keyed hashes
    Column("due", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("claimed", BigInteger),  # until when a worker has it
    Column("worker", Text),
    Column("error", Text),  # a code
    Column("done", BigInteger),
    Column("answer", Text),  # the far side's reference
    Column("lane", Text),  # who hears a closure's rows of this lane one after the other, in the order of their turns
    Column("turn", Integer),  # the number of the event with which it was written
)
Index("outbox_due", OUTBOX.c.done, OUTBOX.c.due)
Index("outbox_lane", OUTBOX.c.closure, OUTBOX.c.lane)

TICKET = Table(
    "ticket",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("receipt", Text, ForeignKey("closure.receipt"), nullable=False),
    Column("category", Text, nullable=False),
    Column("state", Text, nullable=False),  # open | answered | closed
    Column("opened", BigInteger, nullable=False),
    Column("due", BigInteger, nullable=False),  # of the first answer
    Column("told", Text, nullable=False),  # JSON: zone, source, calendar, provisional
    Column("alarmed", Integer, nullable=False, server_default="0"),  # the highest alarm that was told, in per cent
    Column("answered", BigInteger),
    Column("closed", BigInteger),
    Column("forgotten", BigInteger),  # when the key of its texts died
    Column("ref", LargeBinary, nullable=False),
)
Index("ticket_of", TICKET.c.receipt)
Index("ticket_by_state", TICKET.c.state)

WORD = Table(
    "word",
    METADATA,
    Column("ticket", Text, ForeignKey("ticket.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("role", Text, nullable=False),  # web | phone | officer
    Column("sealed", LargeBinary),  # under the ticket's key
)

ATTEMPT = Table(
    "attempt",
    METADATA,
    Column("source", Text, primary_key=True),  # a keyed digest of where wrong codes came from; "" is everywhere
    Column("minute", BigInteger, primary_key=True),
    Column("count", Integer, nullable=False),
)

WATCH = Table(
    "watch",
    METADATA,
    Column("closure", Text, ForeignKey("closure.id"), primary_key=True),
    Column("token", LargeBinary, primary_key=True),  # a keyed digest of one identity; the key lies in the vault
    Column("epoch", Text, nullable=False),  # which key
)
Index("watch_of", WATCH.c.token)
