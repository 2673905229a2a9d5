"""What the cases share: contestants taking turns, medians of their CPU time, and a result that a script can read."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("cryptography", "numpy", "pyarrow")


@dataclass(frozen=True)
class Row:
    """One contestant: medians over the rounds, of the whole process, user and system."""

    name: str
    cpu_s: float
    wall_s: float
    rounds: tuple[float, ...] = ()  # CPU of each round
    bytes_read: int = 0
    bytes_written: int = 0
    peak_rss: int = 0


@dataclass(frozen=True)
class Bar:
    """What a figure has to reach; informs, and never fails the run."""

    name: str
    value: float
    op: str
    bar: float

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.value >= self.bar if self.op == ">=" else self.value <= self.bar


def take_turns(contestants: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Row]:
    """Run each once to warm up, then all of them in every round, so that a slow moment meets everybody."""
    for work in contestants.values():
        work()
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            before, start = _cpu(), time.perf_counter()
            work()
            cpu[name].append(_cpu() - before)
            wall[name].append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        name: Row(name, statistics.median(cpu[name]), statistics.median(wall[name]), tuple(cpu[name]), peak_rss=peak)
        for name in contestants
    }


def _cpu() -> float:
    """Seconds of this process and of the children that it waited for."""
    used = os.times()
    return time.process_time() + used.children_user + used.children_system


def ratio(theirs: Row, ours: Row) -> float:
    """How many times the CPU of ours theirs took: the median over rounds, so that each round meets one machine."""
    return statistics.median(a / b for a, b in zip(theirs.rounds, ours.rounds, strict=True))


def publish(case: str, rows: Sequence[Row], ratios: Mapping[str, float], bars: Sequence[Bar]) -> None:
    """Print ratios and bars, and write `bench/results/CASE.json`."""
    print(f"\n{'ratio':<58}{'value':>8}")
    for name, value in ratios.items():
        print(f"{name:<58}{value:>8.2f}")
    print(f"\n{'bar':<58}{'value':>8}")
    for one in bars:
        print(f"{one.name:<58}{one.value:>8.2f}  {one.op} {one.bar:g}  {'holds' if one.holds else 'MISSED'}")
    whole = {
        "case": case,
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "rows": [asdict(one) for one in rows],
        "ratios": dict(ratios),
        "bars": [{**asdict(one), "holds": one.holds} for one in bars],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{case}.json").write_text(json.dumps(whole, indent=1) + "\n", "utf-8")


def _processor() -> str:
    names = [one.partition(":")[2].strip() for one in _lines(Path("/proc/cpuinfo")) if one.startswith("model name")]
    return names[0] if names else platform.processor()


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []
