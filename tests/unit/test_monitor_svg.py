"""Charts: well-formed, to scale, escaped, and with a shape for every state."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandamonitor import svg
from pandaserver.model.states import JobState

counts = st.lists(st.integers(0, 10**7), min_size=1, max_size=60)


def parts(drawing: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(drawing).iter(tag))


@given(st.floats(0, 1e9))
def test_the_top_of_an_axis_is_just_above_and_its_quarters_are_whole(value: float) -> None:
    top = svg.nice_ceiling(value)
    assert value <= top <= max(4, 2.01 * value)
    assert top % 4 == 0


@given(counts)
def test_bars_are_to_scale_and_inside(numbers: list[int]) -> None:
    series = [svg.Series("finished", tuple(numbers)), svg.Series("failed", tuple(reversed(numbers)))]
    drawing = str(svg.stacked_bars("chart", [str(i) for i in range(len(numbers))], series))
    bars = [b for b in parts(drawing, "rect") if b.get("class") != "hover"]
    assert len(bars) == 2 * sum(n > 0 for n in numbers)
    assert all(float(b.get("y") or 0) >= 7.9 and float(b.get("height") or 0) <= 142.01 for b in bars)
    heights = sum(float(b.get("height") or 0) for b in bars)
    top = svg.nice_ceiling(max(a + b for a, b in zip(numbers, reversed(numbers), strict=True)))
    assert heights == pytest.approx(142 * 2 * sum(numbers) / top, abs=0.01 * len(bars) + 0.01)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=30))
def test_a_bar_is_full_and_nothing_is_too_thin_to_see(sizes: list[float]) -> None:
    drawing = str(svg.bar("b", [svg.Segment("running", size, "x") for size in sizes]))
    widths = [float(r.get("width") or 0) for r in parts(drawing, "rect")]
    assert sum(widths) == pytest.approx(100, abs=0.1)
    assert min(widths) > 0.4


def test_texts_are_escaped() -> None:
    drawing = str(svg.stacked_bars("<script>", ['"><b>'], [svg.Series("finished", (1.0,))]))
    assert "<script>" not in drawing
    assert "<b>" not in drawing
    assert [t.text for t in parts(drawing, "title")] == ['"><b>: 1 finished']


def test_no_inline_style_and_no_script() -> None:
    drawing = str(svg.symbols()) + str(svg.bar("b", [svg.Segment("a", 1, "t")])) + str(svg.share(1, 3))
    assert not re.search(r"style=|<script|on\w+=", drawing)


def test_every_state_has_a_shape_of_its_own() -> None:
    shapes = [svg.ICONS[state.value] for state in JobState]
    assert len(set(shapes)) == len(shapes)
    ElementTree.fromstring(str(svg.symbols()))


def test_a_share_of_nothing_is_nothing() -> None:
    assert 'width="0.0"' in svg.share(0, 0)
