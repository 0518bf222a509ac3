#!/usr/bin/env python3
"""Transformation: simulates pp -> Z/gamma* -> mu+ mu- with Pythia 8 and writes the muons to an event file."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

try:
    import pythia8mc
except ImportError:
    pythia8mc = None

ENERGY_GEV = 13000
LOWEST_MASS_GEV = 50
LARGEST_SEED = 900_000_000
MUON, PHOTON = 13, 22
# Photons this near belong to the muon that has radiated them ("dressed" muons).
DRESSING_CONE = 0.1
# Pythia's status codes from here on are decays of hadrons, whose photons are somebody else's.
FIRST_DECAY_STATUS = 80
PROGRESS_STEP = 100
# Pythia gives an event up now and then; this often means that something is wrong.
ALLOWED_FAILURES = 0.1


class PayloadError(Exception):
    """The job has failed: exit code, acronym and message go to the job report."""

    def __init__(self, code: int, acronym: str, message: str) -> None:
        """Keep what the report needs."""
        super().__init__(message)
        self.code, self.acronym = code, acronym


@dataclass
class Events:
    """Columns of the event file; the muons of one event stand side by side, the negative one first."""

    number: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    pt: list[tuple[float, float]] = field(default_factory=list)
    eta: list[tuple[float, float]] = field(default_factory=list)
    phi: list[tuple[float, float]] = field(default_factory=list)

    def add(self, number: int, weight: float, muons: tuple[Any, Any]) -> None:
        """Append one event."""
        first, second = muons
        self.number.append(number)
        self.weight.append(weight)
        self.pt.append((first.pT(), second.pT()))
        self.eta.append((first.eta(), second.eta()))
        self.phi.append((first.phi(), second.phi()))


def start_generator(seed: int) -> Any:
    """Set up Pythia for the process; its banner and tables stay out of the log."""
    if pythia8mc is None:
        raise PayloadError(71, "NoGenerator", "the Python module pythia8mc is not in the software of this site")
    generator = pythia8mc.Pythia("", False)
    settings = (
        "Print:quiet = on",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
        f"Beams:eCM = {ENERGY_GEV}.",
        "WeakSingleBoson:ffbar2gmZ = on",
        f"PhaseSpace:mHatMin = {LOWEST_MASS_GEV}.",
        "23:onMode = off",
        f"23:onIfAny = {MUON}",
    )
    for setting in settings:
        if not generator.readString(setting):
            raise PayloadError(72, "BadSetting", f"Pythia does not know the setting {setting!r}")
    if not generator.init():
        raise PayloadError(72, "GeneratorFailed", "Pythia could not be initialised")
    return generator


def hardest_pair(record: Any) -> tuple[Any, Any] | None:
    """Find the dressed mu- and mu+ of largest pt in the final state: those of the Z, with hardly an exception."""
    best: dict[int, Any] = {}
    photons = []
    for particle in record:
        identity = particle.id()
        if not particle.isFinal() or abs(identity) not in (MUON, PHOTON):
            continue
        if identity == PHOTON:
            if particle.statusAbs() < FIRST_DECAY_STATUS:
                photons.append(particle)
        elif identity not in best or particle.pT() > best[identity].pT():
            best[identity] = particle
    return (dress(best[MUON], photons), dress(best[-MUON], photons)) if len(best) == 2 else None


def dress(muon: Any, photons: list[Any]) -> Any:
    """Give the four-momentum of a muon together with the photons around it."""
    momentum = pythia8mc.Vec4(muon.p())
    for photon in photons:
        if pythia8mc.REtaPhi(muon.p(), photon.p()) < DRESSING_CONE:
            momentum = momentum + photon.p()
    return momentum


def generate(generator: Any, wanted: int) -> Events:
    """Make the wanted number of events."""
    events = Events()
    failures = 0
    while len(events.number) < wanted:
        pair = hardest_pair(generator.event) if generator.next() else None
        if pair is None:
            failures += 1
            if failures > ALLOWED_FAILURES * wanted + 10:
                raise PayloadError(73, "GeneratorFailed", f"Pythia gave up {failures} events out of {wanted}")
            continue
        events.add(len(events.number) + 1, generator.infoPython().weight(), pair)
        if len(events.number) % PROGRESS_STEP == 0 or len(events.number) == wanted:
            print(f"zmumu: {len(events.number)} of {wanted} events", flush=True)
    return events


def write(path: Path, events: Events, metadata: dict[str, Any]) -> None:
    """Write the event file under another name first, so that half a file is never taken for a whole one."""
    size = len(events.number)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            metadata=np.array(json.dumps(metadata, sort_keys=True)),
            run=np.full(size, metadata["seed"], dtype=np.int64),
            event=np.array(events.number, dtype=np.int64),
            weight=np.array(events.weight, dtype=np.float64),
            charge=np.tile(np.array([-1, 1], dtype=np.int8), (size, 1)),
            pt=np.array(events.pt, dtype=np.float32),
            eta=np.array(events.eta, dtype=np.float32),
            phi=np.array(events.phi, dtype=np.float32),
        )
    part.replace(path)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(
        description=f"Simulate pp -> Z/gamma* -> mu+ mu- at {ENERGY_GEV / 1000:.0f} TeV with Pythia 8.",
        epilog="example: ./zmumu.py --seed 7 --events 300 --output zmumu._00007.npz",
    )
    parser.add_argument("--seed", type=int, required=True, help=f"from 1 to {LARGEST_SEED}; also the run number")
    parser.add_argument("--events", type=int, default=300, help="how many (300)")
    parser.add_argument("--output", type=Path, required=True, help="name of the event file")
    options = parser.parse_args(arguments)
    if not 1 <= options.seed <= LARGEST_SEED:
        parser.error(f"--seed {options.seed}: must be from 1 to {LARGEST_SEED}")
    if options.events < 1:
        parser.error(f"--events {options.events}: must be at least 1")
    return options


def run(options: argparse.Namespace) -> int:
    """Do the job and give back the number of events."""
    started = time.monotonic()
    generator = start_generator(options.seed)
    print(f"zmumu: Pythia {generator.parm('Pythia:versionNumber'):.3f}, seed {options.seed}", flush=True)
    events = generate(generator, options.events)
    cross_section_pb = generator.infoPython().sigmaGen() * 1e9
    metadata = {
        "generator": f"Pythia {generator.parm('Pythia:versionNumber'):.3f}",
        "process": "pp -> Z/gamma* -> mu+ mu-",
        "energy_gev": ENERGY_GEV,
        "seed": options.seed,
        "cross_section_pb": cross_section_pb,
    }
    write(options.output, events, metadata)
    print(
        f"zmumu: {options.events} events in {options.output}, cross section {cross_section_pb:.0f} pb, "
        f"{time.monotonic() - started:.1f} s",
        flush=True,
    )
    return int(options.events)


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
        print(f"zmumu: {message}", file=sys.stderr)
    report = {"exitCode": code, "exitAcronym": acronym, "exitMsg": message, "nEvents": events}
    Path("jobReport.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
