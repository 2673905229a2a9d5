"""Two accounts through the days of their closing, for the demo: a clock that moves, and one person who comes back.

The one comes back by the restore code in the last second. The other does not: in the minute in which the days to change
one's mind are over run-due erases whoever is due, in one batch, and issues the certificate.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from fangxin.data.vocabulary import Identity
from fangxin.flows.cli.console import say, table


def walk(house: Path, catalog: Path, back: Identity, gone: Identity, now: datetime) -> dict[str, str]:
    """Close two accounts from the request to their end; the states they end in, and the certificate of who left."""
    from fangxin.data.errors import NotAllowed
    from fangxin.flows import closing, ending, standing
    from fangxin.flows.desk import at_desk, request_of
    from fangxin.flows.estate import alone, open_estate

    _answering(house)

    def told(moment: datetime, text: str) -> None:
        local = moment.astimezone(ZoneInfo(desk.promise.zone))
        say(f"   {local:%m-%d %H:%M:%S}  {text}")

    with at_desk(open_estate(house, catalog, now)) as desk:
        made = closing.open_closure(desk, [back], level="session", laws=("pipl", "gdpr"))
        told(now, f"{made.id} is opened: receipt code {made.receipt}")
        left = closing.open_closure(desk, [gone], level="session", laws=("pipl", "gdpr"))
        told(now, f"{left.id} is opened by somebody else, who will not come back")
        closing.make_plan(desk, left.id)
        planned = standing.status(desk, closing.make_plan(desk, made.id))
        items = [
            (i["kind"], i["fate"], i["amount"], f"{i['minor'] / 100:.2f}" if i["minor"] else "")
            for i in planned["items"]
        ]
        table(("   item", "what becomes of it", "amount", "paid"), [(f"   {kind}", *rest) for kind, *rest in items])
        table(("   promise or law", "until"), [(f"   {c['name']}", c["deadline"]) for c in planned["clocks"]])
        review = desk.closures.timers(made.id)["review"]
    with at_desk(open_estate(house, catalog, review)) as desk:
        ending.run_due(desk)
        told(review, "nobody was there: low risk is approved at the end of the second working day")
        night = desk.closures.timers(made.id)["seal"]
    with at_desk(open_estate(house, catalog, night)) as desk:
        ending.run_due(desk)
        ends = request_of(desk.closures.get(made.id)).regret_ends or night
        told(night, f"sealed: the keys are out of the vault, until {ends:%m-%dT%H:%MZ} it can be undone")
    last = ends - timedelta(seconds=1)
    with at_desk(open_estate(house, catalog, last)) as desk:
        try:
            closing.restore(desk, made.id, answers={})
        except NotAllowed as refused:
            told(last, f"somebody who is merely signed in: {refused.message}")
        restored = closing.restore(desk, made.id, code=made.restore)
        told(last, "the restore code, in the last second: everything is back, bit for bit")
    with at_desk(open_estate(house, catalog, ends)) as desk, alone(house):
        for error in ending.run_due(desk, options={"now": ends.isoformat()}).errors:
            raise error
        over = standing.status(desk, desk.closures.get(left.id))
        told(ends, f"the days of the other are over: keys destroyed, bytes overwritten, {over['public']}")
    number = Path(str(over["certificate"])).stem
    say(f"   its certificate: {number}; the receipt code still opens status, certificate and questions")
    return {"closing": restored.state, "closed": over["state"], "certificate": str(over["certificate"])}


def _answering(house: Path) -> None:
    """Two officers who can answer for sealed people; their keys lie beside the home, as everything of the demo."""
    import contextlib
    import io

    from fangxin.flows.cli.closing import answerer, answerers

    folder = house.parent / "officers"
    with contextlib.redirect_stdout(io.StringIO()):
        for name in ("dpo_1", "dpo_2"):
            answerer(name, folder, as_json=True)
        answerers(house, sorted(folder.glob("*.pub")), as_json=True)
