"""The jobs of the demonstration: simulate Z bosons, fill their mass histogram, fit the peak."""

from __future__ import annotations

from typing import Any

EVENTS = "mc.demo.zmumu.evnt"
HISTOGRAMS = "user.alice.zmumu.hist"
RESULT = "user.alice.zmumu.result"
RELEASE = "pythia-8.3"


def event_file(number: int) -> str:
    """Name the event file of a production job."""
    return f"zmumu._{number:05d}.npz"


def production(jobs: int, events: int, script_url: str) -> list[dict[str, Any]]:
    """Describe the production: each job simulates with its own seed; the outputs end in one dataset at the Tier-1."""
    return [
        {
            "jobName": f"zmumu.{number:05d}",
            "prodSourceLabel": "managed",
            "processingType": "evgen",
            "transformation": script_url,
            "jobParameters": f"--seed {number} --events {events} --output {event_file(number)}",
            "AtlasRelease": RELEASE,
            "cloud": "US",
            "assignedPriority": 500,
            "maxAttempt": 3,
            "minRamCount": 1000,
            "maxWalltime": 1800,
            "destinationDBlock": EVENTS,
            "Files": [_file("output", event_file(number), EVENTS), _log(EVENTS)],
        }
        for number in range(1, jobs + 1)
    ]


def analysis(jobs: int, per_job: int, script_urls: dict[str, str]) -> list[dict[str, Any]]:
    """Describe a user's analysis at UTA: histograms of the production's events, and a last job that merges and fits."""
    numbers = list(range(1, jobs + 1))
    parts = [numbers[i : i + per_job] for i in range(0, jobs, per_job)]
    histograms = [f"dimuon._{n:05d}.json" for n in range(1, len(parts) + 1)]
    fill = [
        _user_job(
            f"dimuon.{number:05d}",
            script_urls["dimuon.py"],
            f"--inputs {','.join(map(event_file, part))} --output {histogram}",
            [*(_file("input", event_file(n), EVENTS) for n in part), _file("output", histogram, HISTOGRAMS)],
            HISTOGRAMS,
        )
        for number, (part, histogram) in enumerate(zip(parts, histograms, strict=True), 1)
    ]
    results = ["zpeak.png", "zpeak.json"]
    fit = _user_job(
        "fit",
        script_urls["fit.py"],
        f"--inputs {','.join(histograms)} --output-plot {results[0]} --output-json {results[1]}",
        [*(_file("input", h, HISTOGRAMS) for h in histograms), *(_file("output", r, RESULT) for r in results)],
        RESULT,
    )
    return [*fill, fit]


def _user_job(name: str, script_url: str, parameters: str, files: list[dict[str, str]], dataset: str) -> dict[str, Any]:
    return {
        "jobName": name,
        "prodSourceLabel": "user",
        "processingType": "analysis",
        "transformation": script_url,
        "jobParameters": parameters,
        "AtlasRelease": RELEASE,
        "computingSite": "UTA",
        "maxAttempt": 3,
        "maxWalltime": 1800,
        "destinationDBlock": dataset,
        "Files": [*files, _log(dataset)],
    }


def _file(kind: str, lfn: str, dataset: str) -> dict[str, str]:
    return {"type": kind, "lfn": lfn, "dataset": dataset}


def _log(dataset: str) -> dict[str, str]:
    return _file("log", "$PANDAID.log.tgz", f"{dataset}.log")
