"""Mako templates that escape everything: names of datasets, users and sites come from strangers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path

from mako.lookup import TemplateLookup
from markupsafe import Markup

from pandamonitor import svg, text
from pandaserver.model.states import AFTER_PILOT, QUEUED, WITH_PILOT, JobState

_HERE = Path(__file__).parent
STATIC = _HERE / "static"


@cache
def _templates() -> TemplateLookup:
    return TemplateLookup(
        directories=[str(_HERE / "templates")],
        default_filters=["h"],
        strict_undefined=True,
        input_encoding="utf-8",
        filesystem_checks=False,
    )


def render(template: str, values: Mapping[str, object]) -> Markup:
    """Render a template with what all of them may use."""
    rendered = _templates().get_template(f"/{template}.mako").render(**_TOOLS, **values)
    return Markup(rendered)  # templates escape all that they are given  # nosec B704


_LIKE = {"queued": "waiting", "done": "finished", "lost": "failed", "under way": "running"}  # what is no job's state


def badge(state: JobState | str) -> Markup:
    """Show a state by shape, word and colour."""
    name = str(state)
    like = _LIKE.get(name, name)
    return Markup('<span class="state s-{}">{}{}</span>').format(like, svg.icon(like), name)


def moment(at: datetime | None) -> Markup:
    """Show a moment in UTC; the script adds local time and age for those who point at it."""
    if at is None:
        return Markup('<span class="none">–</span>')
    return Markup('<time datetime="{}">{}</time>').format(text.iso(at), text.utc(at))


def stage(state: JobState) -> str:
    """Name the part of a job's life that a state belongs to."""
    for name, states in (("queued", QUEUED), ("pilot", WITH_PILOT), ("after", AFTER_PILOT)):
        if state in states:
            return name
    return "final"


@cache
def fingerprint(name: str) -> str:
    """Give a mark of a static file that changes with it, so that browsers may keep it for long."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


_TOOLS: dict[str, object] = {
    "badge": badge,
    "count": text.count,
    "duration": text.duration,
    "hours_text": text.hours,
    "icon": svg.icon,
    "moment": moment,
    "percent": text.percent,
    "share": svg.share,
    "size": text.size,
}
