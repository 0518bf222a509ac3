"""Small charts as SVG, drawn on the server, coloured by the style sheet: no script and no picture files needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_PLOT = (44, 8, 668, 142)  # left, top, width, height of the plot inside the picture
_PICTURE = (720, 176)
_TOPS = (4, 8, 12, 20, 40, 60, 80, 100, 120)
_LABEL_GAP = 64  # no closer than this, or labels run into each other


@dataclass(frozen=True)
class Series:
    """One kind of thing in every bin; the name is the style class too."""

    name: str
    values: tuple[float, ...]


def nice_ceiling(value: float) -> int:
    """Give a good top for an axis: its quarters are whole numbers that are easily read."""
    power: int = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return next(step for step in (top * power for top in _TOPS) if step >= value)


def stacked_bars(title: str, labels: Sequence[str], series: Sequence[Series]) -> Markup:
    """Draw bars, one per bin, the series on top of each other; every bar tells its numbers when pointed at."""
    left, top, width, height = _PLOT
    totals = [sum(s.values[i] for s in series) for i in range(len(labels))]
    ceiling = nice_ceiling(max(totals, default=0))
    step = width / max(1, len(labels))
    parts = [_grid(ceiling)]
    for number, label in enumerate(labels):
        parts.append(_bar(number, label, series, ceiling=ceiling))
        if number % math.ceil(_LABEL_GAP / step) == 0:
            x = left + number * step
            parts.append(Markup('<text class="tick" x="{:.1f}" y="{}">{}</text>').format(x, top + height + 16, label))
    view = f"0 0 {_PICTURE[0]} {_PICTURE[1]}"
    frame = Markup('<svg class="chart" viewBox="{}" role="img" aria-label="{}">{}</svg>')
    return frame.format(view, title, Markup().join(parts))


def _grid(ceiling: int) -> Markup:
    left, top, width, height = _PLOT
    lines = []
    for quarter in range(5):
        y = top + height * (1 - quarter / 4)
        text = f"{ceiling * quarter // 4:,}"
        lines.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            left, left + width, y, y
        ))  # fmt: skip
        lines.append(Markup('<text class="tick end" x="{}" y="{:.1f}">{}</text>').format(left - 6, y + 4, text))
    return Markup().join(lines)


def _bar(number: int, label: str, series: Sequence[Series], *, ceiling: int) -> Markup:
    left, top, width, height = _PLOT
    step = width / len(series[0].values)
    told = ", ".join(f"{s.values[number]:g} {s.name}" for s in series if s.values[number])
    pieces = [Markup("<title>{}: {}</title>").format(label, told or "nothing")]
    base = float(top + height)
    for one in series:
        tall = height * one.values[number] / ceiling
        if tall:
            base -= tall
            pieces.append(
                Markup('<rect class="fill-{}" x="{:.1f}" y="{:.2f}" width="{:.1f}" height="{:.2f}"/>').format(
                    one.name, left + number * step + 0.5, base, max(1.0, step - 1.5), tall
                )
            )
    area = Markup('<rect class="hover" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>')
    pieces.append(area.format(left + number * step, top, step, height))
    return Markup("<g>{}</g>").format(Markup().join(pieces))


@dataclass(frozen=True)
class Segment:
    """A piece of a bar; the name is the style class too."""

    name: str
    size: float
    text: str


def bar(title: str, segments: Sequence[Segment], *, least: float = 0.8) -> Markup:
    """Draw one horizontal bar of segments by size; small ones stay visible with `least` percent each."""
    total = sum(s.size for s in segments)
    wide = [max(least, 100 * s.size / total) if total else 100 / len(segments) for s in segments]
    scale = 100 / sum(wide) if wide else 1
    x, pieces = 0.0, []
    for segment, width in zip(segments, wide, strict=True):
        pieces.append(
            Markup('<rect class="fill-{}" x="{:.3f}" y="0" width="{:.3f}" height="10"><title>{}</title></rect>').format(
                segment.name, x, width * scale, segment.text
            )
        )
        x += width * scale
    frame = Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    )
    return frame.format(title, Markup().join(pieces))


def share(part: float, whole: float) -> Markup:
    """Draw how much of the whole a part is; the number stands beside it."""
    width = 100 * part / whole if whole else 0
    frame = Markup(
        '<svg class="bar share" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="fill-failed" width="{:.1f}" height="10"/></svg>'
    )
    return frame.format(width)


# 16 x 16, drawn in the current colour; each state has a shape of its own, so that none is told by colour alone
ICONS: dict[str, str] = {
    "defined": '<circle cx="8" cy="8" r="5.5" class="i-line i-dash"/>',
    "waiting": '<path class="i-line" d="M4 2.5h8M4 13.5h8M5 2.5c0 4 6 7 6 11M11 2.5c0 4-6 7-6 11"/>',
    "assigned": '<circle cx="8" cy="8" r="5.5" class="i-line"/><path class="i-line" d="M8 5v6M5.5 8.5 8 11l2.5-2.5"/>',
    "activated": '<circle cx="8" cy="8" r="5.5" class="i-line"/><circle cx="8" cy="8" r="2.2"/>',
    "throttled": '<path d="M4 3h3v10H4zM9 3h3v10H9z"/>',
    "sent": '<path d="M2 3l12 5-12 5 2.5-5z"/>',
    "starting": '<circle cx="8" cy="8" r="5.5" class="i-line"/><path d="M8 2.5a5.5 5.5 0 0 1 0 11z"/>',
    "running": '<path d="M4 2.5v11l9.5-5.5z"/>',
    "holding": '<rect x="3" y="3" width="10" height="10" rx="1.5" class="i-line"/><path class="i-line" d="M6 8h4"/>',
    "transferring": '<path class="i-line" d="M2 5.5h10M9.5 3 12 5.5 9.5 8M14 10.500H4M6.5 8 4 10.5 6.5 13"/>',
    "merging": '<path class="i-line" d="M3 3l5 5v6M13 3 8 8M5.5 11.5 8 14l2.5-2.5"/>',
    "finished": '<circle cx="8" cy="8" r="6.5"/><path class="i-cut" d="M4.8 8.2 7.2 10.5 11.3 5.8"/>',
    "failed": '<path d="M5 1.5h6L14.5 5v6L11 14.500H5L1.5 11V5z"/><path class="i-cut" d="M5.5 5.5l5 5M10.5 5.5l-5 5"/>',
    "cancelled": '<circle cx="8" cy="8" r="5.8" class="i-line"/><path class="i-line" d="M4 12 12 4"/>',
    "closed": '<rect x="2.5" y="2.5" width="11" height="11" rx="1.5"/><path class="i-cut" d="M5 8h6"/>',
    "good": '<circle cx="8" cy="8" r="6.5"/><path class="i-cut" d="M4.8 8.2 7.2 10.5 11.3 5.8"/>',
    "warning": '<path d="M8 1.5 15 14H1z"/><path class="i-cut" d="M8 6v4M8 11.7v.6"/>',
    "bad": '<path d="M5 1.5h6L14.5 5v6L11 14.500H5L1.5 11V5z"/><path class="i-cut" d="M8 4.5v4.500M8 11v.6"/>',
}


def symbols() -> Markup:
    """Give all icons as symbols, to stand once in every page."""
    drawn = [f'<symbol id="i-{name}" viewBox="0 0 16 16">{shape}</symbol>' for name, shape in ICONS.items()]
    return Markup('<svg class="symbols" aria-hidden="true">{}</svg>').format(Markup("").join(map(Markup, drawn)))


def icon(name: str) -> Markup:
    """Use an icon; readers of the screen hear the word beside it instead."""
    return Markup('<svg class="icon" aria-hidden="true"><use href="#i-{}"/></svg>').format(escape(name))
