"""A chart of bench rows as SVG: a bar for each figure, and a mark where its limit or its goal lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from report import Row

_WIDTH, _LEFT, _RIGHT, _LINE, _BAR, _TOP = 1000, 270, 230, 30, 16, 50
_GOOD, _BAD, _PLAIN, _INK, _RULE = "#2e7d5b", "#b4472e", "#4a6fa5", "#222", "#bbb"


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure as a part of what it is compared with; `is_good`: whether all goals are met, None without any."""

    name: str
    share: float
    mark: float
    text: str
    is_good: bool | None


def bars(rows: Sequence[Row]) -> list[Bar]:
    """The rows that can be compared: with a part of their limit, with a goal, or with their limit."""
    return [bar for row in rows if (bar := _bar(row)) is not None]


def _bar(row: Row) -> Bar | None:
    value, limit = row["value"], row["limit"]
    goal, goal_ratio = (_number(row["detail"].get(name)) for name in ("goal", "goal_ratio"))
    if value is None or not (goal or limit):
        return None
    figure = f"{value:,.0f} {row['unit']}" if value >= 100 else f"{value:,.1f} {row['unit']}"
    met = [_is_at_most(*each) for each in _bounds(row).values()]
    if goal:
        # Of a rate the more the better, of a time the less.
        met.append(value >= goal if row["unit"].endswith("/s") else value <= goal)
    whole = _number(row["detail"].get("with_its_end"))
    if whole is not None:
        figure += f" ({whole:,.0f} with its end)"
    if limit and (goal_ratio or not goal):
        ratio = row["ratio"] or value / limit
        if goal_ratio is not None:
            met.append(ratio >= goal_ratio)
        return Bar(row["name"], ratio, goal_ratio or 1.0, f"{figure}, {ratio:.0%}", all(met) if met else None)
    assert goal
    return Bar(row["name"], value / goal, 1.0, f"{figure} (goal {goal:,.0f})", all(met))


def _bounds(row: Row) -> dict[str, tuple[object, object]]:
    """What must not be more than a bound, beside the figure itself: by name, what it is and the bound."""
    found = row["detail"].get("at_most")
    return {name: (value, bound) for name, (value, bound) in found.items()} if isinstance(found, dict) else {}


def _is_at_most(value: object, bound: object) -> bool:
    number, most = _number(value), _number(bound)
    return number is not None and most is not None and number <= most


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def chart(rows: Sequence[Row], title: str) -> str:
    """The document. A bar ends at twice its mark's unit at the latest."""
    drawn = bars(rows)
    height = _TOP + _LINE * len(drawn) + 30
    scale = (_WIDTH - _LEFT - _RIGHT) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(20, 28, title, size=16),
        _line(_LEFT, _TOP - 8, height - 30, _RULE),
        _text(_LEFT, height - 10, "The mark is the goal, or the limit of the same run where a figure has none."),
    ]
    for number, bar in enumerate(drawn):
        y = _TOP + _LINE * number
        colour = _PLAIN if bar.is_good is None else _GOOD if bar.is_good else _BAD
        length, mark = min(bar.share, 2.0) * scale, bar.mark * scale
        parts += [
            _text(_LEFT - 10, y + 13, bar.name, anchor="end"),
            f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>',
            _line(_LEFT + mark, y - 4, y + _BAR + 4, _INK),
            _text(_LEFT + max(length, mark) + 8, y + 13, bar.text),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{_INK}">{escape(text)}</text>'


def _line(x: float, top: float, bottom: float, colour: str) -> str:
    return f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{colour}" stroke-width="2"/>'
