#!/usr/bin/env python3
"""Analysis: fills a histogram of the dimuon mass from event files."""

from __future__ import annotations

import argparse
import json
import os
import sys
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LOW_GEV, HIGH_GEV, BINS = 60.0, 120.0, 60
# What a detector like ATLAS or CMS can trigger on and measure.
LOWEST_PT_GEV = 20.0
LARGEST_ETA = 2.5
MUON_MASS_GEV = 0.1056584


class PayloadError(Exception):
    """The job has failed: exit code, acronym and message go to the job report."""

    def __init__(self, code: int, acronym: str, message: str) -> None:
        """Keep what the report needs."""
        super().__init__(message)
        self.code, self.acronym = code, acronym


@dataclass(frozen=True)
class Muons:
    """The muon pairs of one event file: rows are events, columns the two muons."""

    weight: Floats
    charge: Floats
    pt: Floats
    eta: Floats
    phi: Floats


@dataclass(frozen=True)
class Histogram:
    """Sums of weights, and of their squares, in bins of equal width."""

    low: float
    high: float
    bins: int
    contents: list[float]
    variances: list[float]
    underflow: float
    overflow: float
    events_read: int
    events_selected: int


def read(path: Path) -> Muons:
    """Read one event file and check that it is one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            muons = Muons(*(np.asarray(columns[name], dtype=np.float64) for name in Muons.__dataclass_fields__))
    except FileNotFoundError:
        raise PayloadError(65, "NoInput", f"{path}: the input file is not here") from None
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise PayloadError(66, "BadEventFile", f"{path} is no event file: {error}") from error
    complaint = find_fault(muons)
    if complaint:
        raise PayloadError(66, "BadEventFile", f"{path} is no event file: {complaint}")
    return muons


def find_fault(muons: Muons) -> str | None:
    """Say what is wrong with the columns, if anything is."""
    pairs = (len(muons.weight), 2)
    for name in Muons.__dataclass_fields__:
        column = getattr(muons, name)
        expected = pairs[:1] if name == "weight" else pairs
        if column.shape != expected:
            return f"{name} has the shape {column.shape} instead of {expected}"
        if not np.isfinite(column).all():
            return f"{name} holds values that are no numbers"
    return None


def select(muons: Muons) -> NDArray[np.bool_]:
    """Tell which events have two muons of opposite charge inside the acceptance."""
    inside = (muons.pt > LOWEST_PT_GEV) & (np.abs(muons.eta) < LARGEST_ETA)
    chosen: NDArray[np.bool_] = inside.all(axis=1) & (muons.charge.prod(axis=1) < 0)
    return chosen


def invariant_mass(muons: Muons) -> Floats:
    """Add the two four-momenta and take the mass, in GeV."""
    px, py = muons.pt * np.cos(muons.phi), muons.pt * np.sin(muons.phi)
    pz = muons.pt * np.sinh(muons.eta)
    energy = np.sqrt(px**2 + py**2 + pz**2 + MUON_MASS_GEV**2)
    squared = energy.sum(axis=1) ** 2 - px.sum(axis=1) ** 2 - py.sum(axis=1) ** 2 - pz.sum(axis=1) ** 2
    mass: Floats = np.sqrt(np.maximum(squared, 0.0))
    return mass


def fill(masses: Floats, weights: Floats, *, events_read: int) -> Histogram:
    """Sort the selected events into the bins; the upper edge belongs to the overflow."""
    inside = (masses >= LOW_GEV) & (masses < HIGH_GEV)
    edges = np.linspace(LOW_GEV, HIGH_GEV, BINS + 1)
    return Histogram(
        low=LOW_GEV,
        high=HIGH_GEV,
        bins=BINS,
        contents=np.histogram(masses[inside], edges, weights=weights[inside])[0].tolist(),
        variances=np.histogram(masses[inside], edges, weights=weights[inside] ** 2)[0].tolist(),
        underflow=float(weights[masses < LOW_GEV].sum()),
        overflow=float(weights[masses >= HIGH_GEV].sum()),
        events_read=events_read,
        events_selected=len(masses),
    )


def analyse(inputs: list[Path]) -> Histogram:
    """Read all files and fill one histogram."""
    masses, weights, events_read = [], [], 0
    for number, path in enumerate(inputs, 1):
        muons = read(path)
        chosen = select(muons)
        masses.append(invariant_mass(muons)[chosen])
        weights.append(muons.weight[chosen])
        events_read += len(chosen)
        print(f"dimuon: file {number} of {len(inputs)}: {chosen.sum()} of {len(chosen)} events selected", flush=True)
    return fill(np.concatenate(masses), np.concatenate(weights), events_read=events_read)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON under another name first, so that half a file is never taken for a whole one."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content) + "\n", encoding="utf-8")
    part.replace(path)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Fill the dimuon mass histogram from event files.",
        epilog="example: ./dimuon.py --inputs zmumu._00001.npz,zmumu._00002.npz --output hist.json",
    )
    parser.add_argument("--inputs", required=True, help="event files, separated by commas")
    parser.add_argument("--output", type=Path, required=True, help="name of the histogram file")
    options = parser.parse_args(arguments)
    options.inputs = [Path(name) for name in options.inputs.split(",") if name]
    if not options.inputs:
        parser.error("--inputs names no file")
    return options


def run(options: argparse.Namespace) -> int:
    """Do the job and give back the number of events read."""
    histogram = analyse(options.inputs)
    write(options.output, {"observable": "dimuon mass", "unit": "GeV", **asdict(histogram)})
    print(f"dimuon: {histogram.events_selected} of {histogram.events_read} events in {options.output}", flush=True)
    return histogram.events_read


def main(arguments: list[str] | None = None) -> int:
    """Run the payload and leave the job report, which the pilot sends to the server."""
    options = parse_arguments(arguments)
    code, acronym, message, events = os.EX_OK, "OK", "", 0
    try:
        events = run(options)
    except PayloadError as error:
        code, acronym, message = error.code, error.acronym, str(error)
    except OSError as error:
        code, acronym, message = 74, "FileError", str(error)
    if message:
        print(f"dimuon: {message}", file=sys.stderr)
    report = {"exitCode": code, "exitAcronym": acronym, "exitMsg": message, "nEvents": events}
    Path("jobReport.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
