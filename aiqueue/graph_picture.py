"""A chain or a graph as an SVG picture: steps in rows by how much comes before them, coloured by their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

#: Fill and border by what a step's status means; other steps wait.
COLOURS: Mapping[str, tuple[str, str]] = {
    "completed": ("#d3f3d3", "#2e7d32"),
    "processing": ("#cfe3ff", "#1565c0"),
    "cancelling": ("#cfe3ff", "#1565c0"),
    "failed": ("#ffd6d6", "#c62828"),
    "dead_letter": ("#ffd6d6", "#c62828"),
    "expired": ("#ffe7c2", "#ef6c00"),
    "cancelled": ("#e6e6e6", "#616161"),
}
_WAITS = ("#ffffff", "#9e9e9e")
MOST = 300  #: steps; a picture of more shows nothing
_HEIGHT, _GAP, _DOWN, _EDGE, _LETTER = 44, 24, 46, 10, 7.4  # pixels

_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}" '
    'font-family="sans-serif" font-size="13" text-anchor="middle"><defs><marker id="tip" viewBox="0 0 8 8" refX="8" '
    'refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#616161"/></marker></defs>'
)
_LINE = '<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="#616161" marker-end="url(#tip)"/>'
_BOX = (
    '<g><title>{title}</title><rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="6" '
    'fill="{fill}" stroke="{border}"/><text x="{middle:.1f}" y="{upper:.1f}" fill="#212121">{name}</text>'
    '<text x="{middle:.1f}" y="{lower:.1f}" fill="#424242" font-size="11">{status}</text></g>'
)


class Box(NamedTuple):
    """One step. ``after``: places of the steps it waits for, all before its own."""

    name: str
    status: str
    title: str
    after: Sequence[int]


class _Placed(NamedTuple):
    x: float
    y: float
    width: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def svg(boxes: Sequence[Box]) -> str:
    """Return the picture of steps in an order in which each comes after those it waits for."""
    rows = _rows(boxes)
    widths = [max(len(box.name), len(box.status)) * _LETTER + 2 * _EDGE for box in boxes]
    spans = [sum(widths[at] for at in row) + _GAP * (len(row) - 1) for row in rows]
    full = max(spans) + 2 * _EDGE
    placed: dict[int, _Placed] = {}
    for depth, (row, span) in enumerate(zip(rows, spans, strict=True)):
        x = (full - span) / 2
        for at in row:
            placed[at] = _Placed(x, _EDGE + depth * (_HEIGHT + _DOWN), widths[at])
            x += widths[at] + _GAP
    lines = [
        _LINE.format(placed[of].middle, placed[of].y + _HEIGHT, placed[at].middle, placed[at].y)
        for at, box in enumerate(boxes)
        for of in box.after
    ]
    height = len(rows) * (_HEIGHT + _DOWN) - _DOWN + 2 * _EDGE
    return "".join(
        [_HEAD.format(full, height), *lines, *(_box(box, placed[at]) for at, box in enumerate(boxes)), "</svg>"]
    )


def _rows(boxes: Sequence[Box]) -> list[list[int]]:
    """Return the places of the steps by the longest way to each."""
    depths: list[int] = []
    for box in boxes:
        depths.append(max((depths[of] + 1 for of in box.after), default=0))
    return [[at for at, depth in enumerate(depths) if depth == row] for row in range(max(depths) + 1)]


def _box(box: Box, at: _Placed) -> str:
    fill, border = COLOURS.get(box.status, _WAITS)
    return _BOX.format(
        title=escape(box.title),
        x=at.x,
        y=at.y,
        width=at.width,
        height=_HEIGHT,
        fill=fill,
        border=border,
        middle=at.middle,
        upper=at.y + 19,
        lower=at.y + 35,
        name=escape(box.name),
        status=escape(box.status),
    )
