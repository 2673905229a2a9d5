"""Every reachable state of a closure, explored: what must always hold holds, and without any one guard it does not.

The model is the product's own table of moves. Time stands at three instants, counted from the seal: at once, after a
waiver's notice, after the days of regret. Officers are two, who are not told apart, and the holder's own. What no guard
reads any more is forgotten: money and export after the point of no return, who signed once it began.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import pytest

from fangxin.data.errors import NotAllowed
from fangxin.flows.lifecycle import (
    BEFORE_SEAL,
    ERASING,
    FINAL,
    GUARDS,
    TABLE,
    Actor,
    Event,
    Export,
    Hold,
    Keys,
    Move,
    Profile,
    Request,
    Settlement,
    State,
    step,
)

START = datetime(2026, 11, 27, 9, tzinfo=UTC)
INSTANTS = [START + d for d in (timedelta(), timedelta(hours=25), timedelta(days=8))]
OFFICERS = ("o-1", "o-2", "o-self")
MOST_ROUNDS = 2
ALIKE = ("collect", "waive_export", "export_expired")  # lead to states that every guard reads like "ready"
NEVER_BACK = (*ERASING, State.STALLED, State.CERTIFIED, State.RESTRICTED, State.CLOSED)


@dataclass(frozen=True)
class Node:
    """A request (without version and entry time, which no guard reads) at one of the instants."""

    request: Request
    at: int

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # of twenty fields, asked for at every edge
        return hash((self.request, self.at))


@dataclass(frozen=True)
class Edge:
    """What led from one node to another."""

    event: Event
    to: Node


def events() -> list[Event]:
    """Everything that anybody may try; who may not try it at all has a test of their own."""
    found: list[Event] = []
    for name in sorted({m.event for m in TABLE}):
        for actor in sorted({a for m in TABLE if m.event == name for a in m.actors}):
            match name:
                case "plan":
                    found += [Event(name, actor, plan="p", high_risk=risk) for risk in (False, True)]
                case "sign":
                    found += [Event(name, actor, (one,), plan=plan) for one in OFFICERS for plan in ("p", "p2")]
                case "locate_again":
                    found += [Event(name, actor), Event(name, actor, plan="p2", grown=True)]
                case "clean":
                    found += [Event(name, actor, kept=kept) for kept in (False, True)]
                case "hold":
                    found += [Event(name, actor, OFFICERS[:2], hold=h, reason="r") for h in (Hold.SOME, Hold.ALL)]
                    found += [Event(name, actor, OFFICERS[:1], hold=Hold.ALL, reason="r")]
                case "lift_hold":
                    found += [Event(name, actor, OFFICERS[:2])]
                case "restore":
                    found += [Event(name, actor, proof="code"), Event(name, actor, OFFICERS[:2], proof="officers")]
                    found += [Event(name, actor, proof="login"), Event(name, actor, OFFICERS[:1], proof="officers")]
                case "reject":
                    found += [Event(name, actor, OFFICERS[:1], reason="r"), Event(name, actor, OFFICERS[:1])]
                case _:
                    found.append(Event(name, actor))
    return found


EVENTS = events()


def settled(moved: Request, at: int) -> Node:
    """The node of a request: what no guard will read again is forgotten, and officers are counted."""
    r = moved
    forgotten: dict[str, Any] = {"version": 0, "entered": None}
    others = len(r.approvals - {"o-self"})
    if r.regret_ends is None:
        at = 0
    if r.state in FINAL:
        forgotten |= {"approvals": frozenset(), "settlement": Settlement.NONE, "export": Export.NONE}
    else:
        forgotten["approvals"] = frozenset(OFFICERS[:others]) | (r.approvals & {"o-self"})
    if r.state in NEVER_BACK:
        forgotten |= {"export": Export.NONE, "settlement": Settlement.NONE, "waived_from": None, "regret_ends": START}
        at = len(INSTANTS) - 1
    settled = object.__new__(Request)  # what `replace` gives, 200,000 times
    vars(settled).update(vars(r), **forgotten)
    return Node(settled, at)


def explore(moves: tuple[Move, ...], profile: Profile, wanted: str | None = None) -> dict[Node, list[Edge]]:
    """Every node that can be reached, with its edges; with `wanted`, no further than the first breach of that name."""
    first = Node(Request("r", profile=profile, owner_officer="o-self"), 0)
    named = {state: {m.event for m in moves if state in m.sources} for state in State}
    possible = {s: [e for e in EVENTS if e.name in named[s] and e.name not in ALIKE] for s in State}
    graph: dict[Node, list[Edge]] = {}
    waiting = deque([first])
    while waiting:
        node = waiting.pop() if wanted else waiting.popleft()  # a breach lies deep
        if node in graph:
            continue
        graph[node] = edges = []
        if node.request.regret_ends is not None and node.at + 1 < len(INSTANTS):
            edges.append(Edge(Event("time"), Node(node.request, node.at + 1)))
        for event in possible[node.request.state]:
            try:
                moved, _move = step(node.request, event, INSTANTS[node.at], moves=moves)
            except NotAllowed:
                continue
            if moved.round <= MOST_ROUNDS:
                edge = Edge(event, settled(moved, node.at))
                edges.append(edge)
                if wanted and any(name.startswith(wanted) for name in broken(node, edge)):
                    return graph
        waiting.extend(edge.to for edge in edges)
    return graph


# ---------------------------------------------------------------- what is always true


def over(r: Request, at: int) -> bool:
    now = INSTANTS[at]
    return (r.regret_ends is not None and now >= r.regret_ends) or (
        r.waived_from is not None and now >= r.waived_from and not r.high_risk
    )


def keys_go(a: Node, b: Node) -> bool:
    return b.request.keys in (Keys.HALF, Keys.DESTROYED) and a.request.keys in (Keys.INTACT, Keys.SEALED)


def broken(a: Node, edge: Edge) -> Iterator[str]:
    """The names of the invariants that this move breaks (process.md 14)."""
    r, to = a.request, edge.to.request
    holder = r.profile is Profile.HOLDER
    begins = r.state is State.READY and to.state is State.DESTROYING
    if begins and holder and not over(r, a.at):
        yield "I1 keys go only after regret is over or waived"
    if to.keys in (Keys.HALF, Keys.DESTROYED) and to.state in (*BEFORE_SEAL, *FINAL - {State.CLOSED}):
        yield "I2 keys never go in restored, cancelled, rejected, expired"
    if keys_go(a, edge.to) and not (to.verified and to.approved):
        yield "I3 keys go only with a verified identity and an approval"
    sealing = r.state is State.SEALING and to.state is State.COOLING
    if sealing and to.high_risk and holder and len(to.approvals) < 2:
        yield "I4 high risk never seals with fewer than two approvals"
    if begins and r.settlement in (Settlement.PENDING, Settlement.FAILED):
        yield "I5 no money is pending or failed at the point of no return"
    if begins and r.export in (Export.PREPARING, Export.FAILED):
        yield "I6 no export is unfinished at the point of no return"
    if to.state in (State.CERTIFIED, State.RESTRICTED, State.CLOSED) and to.keys is not Keys.DESTROYED:
        yield "I7 certified, restricted, closed only with keys destroyed"
    if begins and (to.baseline != to.round or to.hold is Hold.ALL):
        yield "I8 nothing is destroyed without a baseline or under a full hold"
    if begins and not (to.fresh and to.approved):
        yield "I9 nothing is destroyed but under a fresh approved plan"
    if to.state in (State.CERTIFIED, State.RESTRICTED) and to.certified != to.round:
        yield "I10 a certificate is of its own round"
    if to.high_risk and holder and to.waived_from is not None:
        yield "I11 high risk cannot waive"
    if to.state in (State.CERTIFIED, State.CLOSED) and (to.kept or to.hold is not Hold.NONE):
        yield "I12 certified or closed only when nothing is kept"
    if edge.event.name == "hold" and len(edge.event.officers) < 2:
        yield "I14 a hold has two officers"
    if "o-self" in to.approvals:
        yield "I13 nobody approves their own account"
    if to.state is State.RESTORED and (
        r.state in NEVER_BACK or (r.state is State.COOLING and over(r, edge.to.at) and r.waived_from is None)
    ):
        yield "L4 no path leads back after the point of no return, nor a second too late"
    if to.state is State.RESTORED and edge.event.proof == "login":
        yield "S41 a login never restores"
    if to.state in (State.SEALING, State.COOLING) and not to.verified:
        yield "S43 nobody is sealed without a verified identity"
    if to.state is State.COOLING and not to.approved:
        yield "S22 nobody is sealed without an approval"


def breaches(graph: dict[Node, list[Edge]]) -> set[str]:
    return {name for node, edges in graph.items() for edge in edges for name in broken(node, edge)}


def reaching(graph: dict[Node, list[Edge]], goal: Callable[[Node], bool], by: Callable[[Edge], bool]) -> set[Node]:
    """The nodes from which a goal can be reached over edges of a kind."""
    back: dict[Node, list[Node]] = {}
    for node, edges in graph.items():
        for edge in edges:
            if by(edge):
                back.setdefault(edge.to, []).append(node)
    found = {n for n in graph if goal(n)}
    waiting = deque(found)
    while waiting:
        for before in back.get(waiting.popleft(), ()):
            if before not in found:
                found.add(before)
                waiting.append(before)
    return found


@pytest.fixture(scope="module")
def graphs() -> dict[Profile, dict[Node, list[Edge]]]:
    return {profile: explore(TABLE, profile) for profile in Profile}


@pytest.mark.scenario("S41")
def test_every_invariant_holds_in_every_reachable_state(graphs: dict[Profile, dict[Node, list[Edge]]]) -> None:
    for profile, graph in graphs.items():
        assert breaches(graph) == set(), profile
    assert len(graphs[Profile.HOLDER]) > 5_000
    assert {n.request.state for n in graphs[Profile.HOLDER]} == set(State)


def done(node: Node) -> bool:
    return node.request.state in FINAL or node.request.state in (State.CERTIFIED, State.RESTRICTED)


def test_there_is_no_dead_end(graphs: dict[Profile, dict[Node, list[Edge]]]) -> None:
    for graph in graphs.values():
        assert set(graph) - reaching(graph, done, lambda _edge: True) == set()


@pytest.mark.scenario("S14")
def test_no_state_waits_for_the_person_alone(graphs: dict[Profile, dict[Node, list[Edge]]]) -> None:
    """Where the person, and whoever acts for them, does nothing, time, the system and officers bring it to an end."""
    for graph in graphs.values():
        without = reaching(graph, done, lambda e: e.event.actor in (Actor.SYSTEM, Actor.OFFICER))
        assert set(graph) - without == set()


def causes(node: Node) -> bool:
    r = node.request
    return (
        (r.state is State.REVIEW and r.high_risk)
        or r.hold is Hold.ALL
        or (
            r.state in (State.READY, State.REVIEW, State.SEALING, State.COOLING)
            and not r.approved
            and r.plan is not None
        )
        or r.export is Export.FAILED
        or (r.state is State.STALLED)
    )


def ahead(node: Node) -> bool:
    """A cause for staff may still come: a request before the seal whose risk is not yet known or that is high."""
    r = node.request
    return r.high_risk and r.state in (State.SUBMITTED, State.PREFLIGHT, State.REVIEW)


def test_officers_are_needed_for_five_causes_only(graphs: dict[Profile, dict[Node, list[Edge]]]) -> None:
    for graph in graphs.values():
        alone = reaching(graph, done, lambda e: e.event.actor is Actor.SYSTEM)
        stuck = {n for n in graph if n not in alone and not causes(n) and not ahead(n)}
        assert stuck == set()


def test_after_the_point_of_no_return_nothing_leads_back_and_only_a_stall_calls_an_officer(
    graphs: dict[Profile, dict[Node, list[Edge]]],
) -> None:
    for graph in graphs.values():
        back = reaching(graph, lambda n: n.request.state is State.RESTORED, lambda _edge: True)
        late = {n for n in graph if n.request.state in NEVER_BACK}
        assert late
        assert late & back == set()


# Each guard, taken out of the table wherever it stands, and what breaks then.
CAUGHT_BY = {
    "regret over": "I1",
    "approved": "I9",
    "low risk": "I11",
    "money": "I5",
    "export": "I6",
    "not held whole": "I8",
    "fresh": "I9",
    "nothing kept": "I12",
    "not their own": "I13",
    "restore proof": "S41",
    "regret runs": "L4",
    "two officers": "I14",
    "verified": "S43",
}


@pytest.mark.parametrize(  # that one lies deepest: half of all of them together
    "guard", [pytest.param(name, marks=pytest.mark.drill) if name == "verified" else name for name in CAUGHT_BY]
)
def test_without_a_guard_the_model_breaks(guard: str) -> None:
    assert guard in GUARDS
    without = tuple(replace(m, guards=tuple(g for g in m.guards if g != guard)) for m in TABLE)
    assert without != TABLE
    if guard == "verified":  # somebody skips the proof of identity: the plan is made for whoever asks
        without = tuple(replace(m, sources=(*m.sources, State.SUBMITTED)) if m.event == "plan" else m for m in without)
    found = breaches(explore(without, Profile.HOLDER, CAUGHT_BY[guard]))
    assert any(name.startswith(CAUGHT_BY[guard]) for name in found), found


@pytest.mark.scenario("S41")
def test_a_second_too_late_and_a_second_in_time() -> None:
    cooling = Request("r", State.COOLING, verified=True, keys=Keys.SEALED, regret_ends=START, plan="p", automatic=True)
    code = Event("restore", Actor.HOLDER, proof="code")
    assert step(cooling, code, START - timedelta(seconds=1))[0].state is State.RESTORED
    with pytest.raises(NotAllowed, match="over"):
        step(cooling, code, START)
    with pytest.raises(NotAllowed, match="not over"):
        step(cooling, Event("end_regret"), START - timedelta(seconds=1))
    assert step(cooling, Event("end_regret"), START)[0].state is State.READY


def test_nobody_moves_what_is_not_theirs_to_move() -> None:
    for move in TABLE:
        for actor in set(Actor) - {a for m in TABLE if m.event == move.event for a in m.actors}:
            for state in move.sources:
                with pytest.raises(NotAllowed, match="somebody else decides that"):
                    step(Request("r", state), Event(move.event, actor), START)


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        step(Request("r"), Event("submit", Actor.HOLDER), datetime(2026, 11, 27))  # noqa: DTZ001
