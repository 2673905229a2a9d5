"""Charts as SVG, written by hand: bars and steps, few colours, every figure also printed as text.

A banded count is drawn as its band: a pale bar to the upper bound, a full one to the lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fangxin.reports.bands import Shown, lower, upper

INK, SOFT, LINE, JADE, AMBER, RED = "#1d2733", "#5b6875", "#d9dee3", "#17695a", "#c79a45", "#c46a5f"
_LONGEST = 22  # columns of a name that fit beside a bar; a Chinese character takes two
COLOURS = (JADE, AMBER, RED, SOFT)
_FACE = "'Noto Sans CJK SC','Source Han Sans SC','PingFang SC',sans-serif"


def bars(label: str, series: Sequence[str], groups: Sequence[tuple[str, Sequence[Shown]]]) -> str:
    """Grouped bars: `series` names the bars of each group, `groups` are (label, one count for each series)."""
    width, height, left, top, bottom = 640, 190, 34, 26, 24
    most = max([1, *(upper(one) for _name, counts in groups for one in counts)])
    step = (width - left) / max(1, len(groups))
    wide = min(26.0, step * 0.8 / max(1, len(series)))
    drawn = [_axis(left, top, width, height - bottom, most)]
    for n, (name, counts) in enumerate(groups):
        start = left + n * step + (step - wide * len(counts)) / 2
        for k, one in enumerate(counts):
            drawn.append(_bar(start + k * wide + 1, wide - 2, one, most, top, height - bottom, COLOURS[k % 4]))
        drawn.append(_text(left + (n + 0.5) * step, height - 8, name, anchor="middle", fill=SOFT))
    drawn.append(_legend(series, left))
    return _svg(width, height, label, drawn)


def beside(label: str, series: Sequence[str], rows: Sequence[tuple[str, Sequence[Shown]]]) -> str:
    """Bars that lie, one row for each name: for long names and few figures."""
    left, wide, high = 150, 380, 9 * len(series) + 12
    height = 28 + high * len(rows)
    most = max([1, *(upper(one) for _name, counts in rows for one in counts)])
    drawn = [_legend(series, left)]
    for n, (name, counts) in enumerate(rows):
        y = 28 + n * high
        drawn.append(_text(left - 8, y + high / 2 - 1, _shortened(name), anchor="end"))
        for k, one in enumerate(counts):
            full, pale = wide * lower(one) / most, wide * upper(one) / most
            drawn.append(_rect(left, y + 9 * k, max(pale, 1.2), 7, COLOURS[k % 4], 0.4 if pale > full else 1))
            if pale > full:
                drawn.append(_rect(left, y + 9 * k, max(full, 1.2), 7, COLOURS[k % 4], 1))
            drawn.append(_text(left + max(pale, 1.2) + 6, y + 9 * k + 7, said(one), size=9, fill=SOFT))
    return _svg(640, height, label, drawn)


def _shortened(name: str) -> str:
    """A name that fits beside a bar, cut in its middle: names of a kind differ at their ends."""
    if _width(name) <= _LONGEST:
        return name
    first, last = len(name) // 2, len(name) // 2 + 1
    while _width(name[:first]) + _width(name[last:]) > _LONGEST - 2:
        first, last = (first - 1, last) if _width(name[:first]) > _width(name[last:]) else (first, last + 1)
    return f"{name[:first]}…{name[last:]}"


def _width(text: str) -> int:
    """Columns of a terminal: two for a character that is as wide as it is high."""
    return sum(2 if ord(one) >= 0x1100 else 1 for one in text)


def steps(label: str, unit: str, points: Sequence[tuple[str, int]]) -> str:
    """A cumulative share as steps: (label of the bound, per mille up to it), 0 to 1000."""
    width, height, left, top, bottom = 640, 190, 40, 14, 36
    high = height - top - bottom
    step = (width - left - 12) / max(1, len(points))
    drawn = []
    for share in (0, 250, 500, 750, 1000):
        y = top + high * (1000 - share) / 1000
        drawn.append(f'<path d="M{left} {y:.1f}H{width - 12}" stroke="{LINE}" stroke-width="0.8"/>')
        drawn.append(_text(left - 6, y + 3, f"{share // 10} %", anchor="end", size=9, fill=SOFT))
    path, x = [f"M{left} {top + high}"], float(left)
    for name, share in points:
        y = top + high * (1000 - share) / 1000
        path.append(f"V{y:.1f}H{x + step:.1f}")
        drawn.append(_text(x + step / 2, height - 20, name, anchor="middle", size=9, fill=SOFT))
        x += step
    drawn.append(f'<path d="{"".join(path)}" fill="none" stroke="{JADE}" stroke-width="2"/>')
    drawn.append(_text((left + width) / 2, height - 4, unit, anchor="middle", size=9, fill=SOFT))
    return _svg(width, height, label, drawn)


def said(shown: Shown) -> str:
    """A count as people read it: 12,345 or 1–4."""
    if isinstance(shown, int):
        return f"{shown:,}"
    return "–".join(f"{int(one):,}" for one in shown.split("-"))


def _svg(width: int, height: int, label: str, drawn: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(label)}" font-family="{_FACE}" font-size="10">{"".join(drawn)}</svg>'
    )


def _axis(left: float, top: float, right: float, base: float, most: int) -> str:
    half = (top + base) / 2
    lines = "".join(
        f'<path d="M{left} {y:.1f}H{right}" stroke="{LINE}" stroke-width="0.8"/>' for y in (top, half, base)
    )
    marks = [(top, f"{most:,}"), (base, "0")]
    return lines + "".join(_text(left - 5, y + 3, mark, anchor="end", size=9, fill=SOFT) for y, mark in marks)


def _bar(x: float, wide: float, one: Shown, most: int, top: float, base: float, fill: str) -> str:
    full, pale = (base - top) * lower(one) / most, (base - top) * upper(one) / most
    text = _text(x + wide / 2, base - pale - 3, said(one), anchor="middle", size=8.5, fill=SOFT) if pale else ""
    drawn = _rect(x, base - pale, wide, pale, fill, 0.4 if pale > full else 1)
    return drawn + (_rect(x, base - full, wide, full, fill, 1) if pale > full else "") + text


def _rect(x: float, y: float, wide: float, high: float, fill: str, opacity: float) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="1.5" fill="{fill}" '
        f'opacity="{opacity}"/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: float = 10, fill: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">{escape(text)}</text>'
    )


def _legend(series: Sequence[str], left: float) -> str:
    drawn, x = "", left
    for k, name in enumerate(series):
        drawn += f'<rect x="{x:.1f}" y="5" width="9" height="9" rx="2" fill="{COLOURS[k % 4]}"/>'
        drawn += _text(x + 14, 13, name, fill=SOFT)
        x += 26 + sum(11 if ord(letter) > 0x2E80 else 5.6 for letter in name)
    return drawn
