#!/usr/bin/env python3
"""Analysis: merges dimuon mass histograms, fits the Z peak and draws it."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Model = Callable[[Floats], Floats]

# Points in each bin at which the model is evaluated.
POINTS = 8
# From this far above the histogram events can still fall into it, when their muons radiate.
RADIATION_GEV = 15.0
# Of height, mass, width, strength of the radiation, flat rest.
LOWEST_PARAMETERS = (1e-3, 60.0, 0.2, 1e-4, 1e-3)
HIGHEST_PARAMETERS = (np.inf, 120.0, 20.0, 0.5, np.inf)
ITERATIONS = 500
FEWEST_EVENTS = 50
GREATEST_MASS_ERROR_GEV = 5.0
MOST_BINS = 1000

CURVE_COLOUR = "#c8102e"
POINT_STYLE: Any = {"fmt": "o", "color": "black", "markersize": 4.5, "linewidth": 1.2}
STYLE: Any = {
    "font.size": 13,
    "axes.labelsize": 15,
    "axes.linewidth": 1.2,
    "mathtext.fontset": "dejavusans",
    **{f"{axis}tick.direction": "in" for axis in "xy"},
    **{f"{axis}tick.minor.visible": True for axis in "xy"},
    **{f"{axis}tick.{size}.size": length for axis in "xy" for size, length in (("major", 8), ("minor", 4))},
    "xtick.top": True,
    "ytick.right": True,
}


class PayloadError(Exception):
    """The job has failed: exit code, acronym and message go to the job report."""

    def __init__(self, code: int, acronym: str, message: str) -> None:
        """Keep what the report needs."""
        super().__init__(message)
        self.code, self.acronym = code, acronym


@dataclass(frozen=True)
class Histogram:
    """Sums of weights, and of their squares, in bins of equal width."""

    low: float
    high: float
    bins: int
    contents: Floats
    variances: Floats
    underflow: float
    overflow: float
    events_read: int
    events_selected: int

    @property
    def width(self) -> float:
        """The width of a bin."""
        return (self.high - self.low) / self.bins

    @property
    def centres(self) -> Floats:
        """The middle of each bin."""
        return self.low + self.width * (np.arange(self.bins, dtype=np.float64) + 0.5)


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("low", "high", "underflow", "overflow"), float),
    **dict.fromkeys(("bins", "events_read", "events_selected"), int),
    **dict.fromkeys(("contents", "variances"), functools.partial(np.asarray, dtype=np.float64)),
}


@dataclass(frozen=True)
class Peak:
    """What the fit found."""

    z_mass_gev: float
    z_mass_error_gev: float
    width_gev: float
    width_error_gev: float
    chi_square: float
    degrees_of_freedom: int
    parameters: Floats


def read(path: Path) -> Histogram:
    """Read one histogram file and check that it is one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        histogram = Histogram(**{name: convert(content[name]) for name, convert in CONVERTERS.items()})
    except FileNotFoundError:
        raise PayloadError(65, "NoInput", f"{path}: the input file is not here") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise PayloadError(66, "BadHistogram", f"{path} is no histogram: {error!r}") from error
    complaint = find_fault(histogram)
    if complaint:
        raise PayloadError(66, "BadHistogram", f"{path} is no histogram: {complaint}")
    return histogram


def find_fault(histogram: Histogram) -> str | None:
    """Say what is wrong with a histogram, if anything is."""
    if not 10 <= histogram.bins <= MOST_BINS:
        return f"it has {histogram.bins} bins; from 10 to {MOST_BINS} are possible"
    for name in ("contents", "variances"):
        column = getattr(histogram, name)
        if column.shape != (histogram.bins,) or not np.isfinite(column).all():
            return f"{name} has to hold {histogram.bins} numbers"
    if not 0 < histogram.low < histogram.high < np.inf:
        return f"low and high are {histogram.low} and {histogram.high}"
    return None


def merge(histograms: list[Histogram]) -> Histogram:
    """Add histograms of the same binning."""
    binnings = [(each.low, each.high, each.bins) for each in histograms]
    for number, binning in enumerate(binnings, 1):
        if binning != binnings[0]:
            text = f"histogram {number} has the binning {binning}, the first has {binnings[0]}"
            raise PayloadError(67, "BinningDiffers", text)
    summed = [name for name in CONVERTERS if name not in ("low", "high", "bins")]
    return Histogram(*binnings[0], **{name: sum(getattr(each, name) for each in histograms) for name in summed})


# --- the fit ---


def density(histogram: Histogram, parameters: Floats) -> tuple[Floats, Floats]:
    """Give fine mass points and the expected events per bin there.

    The parameters are the height, mass and width of a relativistic Breit-Wigner, the strength of the radiation that the
    muons lose on the way (a loss below the fraction x of the mass has the probability x ** strength), and a flat rest.
    """
    height, pole, width, strength, rest = parameters
    step = histogram.width / POINTS
    masses = np.arange(histogram.low + step / 2, histogram.high + RADIATION_GEV, step, dtype=np.float64)
    peak = height * (pole * width) ** 2 / ((masses**2 - pole**2) ** 2 + (masses**2 * width / pole) ** 2)
    losses = np.minimum((np.arange(len(masses)) + 0.5) * step / pole, 1.0)
    chances = np.diff(losses**strength, prepend=0.0)
    radiated = np.convolve(peak[::-1], chances)[: len(masses)][::-1]
    inside = histogram.bins * POINTS
    return masses[:inside], radiated[:inside] + rest


def expectation(histogram: Histogram, parameters: Floats) -> Floats:
    """Average the density over each bin: the peak is hardly wider than one."""
    averages: Floats = density(histogram, parameters)[1].reshape(histogram.bins, POINTS).mean(axis=1)
    return np.maximum(averages, 1e-6)


def starting_point(histogram: Histogram) -> Floats:
    """Guess the parameters from the highest part of the spectrum."""
    smooth = np.convolve(histogram.contents, np.ones(3) / 3, mode="same")
    rest = min(histogram.contents[:5].mean(), histogram.contents[-5:].mean())
    return inside_bounds(np.array([histogram.contents.max(), histogram.centres[smooth.argmax()], 2.5, 0.03, rest]))


def inside_bounds(parameters: Floats) -> Floats:
    """Keep the parameters where the model means something."""
    return np.clip(parameters, LOWEST_PARAMETERS, HIGHEST_PARAMETERS)


def derivatives(model: Model, parameters: Floats) -> Floats:
    """Differentiate the model numerically: one row for each bin, one column for each parameter."""
    columns = []
    for step in np.diag(1e-5 * np.maximum(1.0, np.abs(parameters))):
        columns.append((model(parameters + step) - model(parameters - step)) / (2 * step.sum()))
    return np.stack(columns, axis=1)


def deviance(contents: Floats, expected: Floats) -> float:
    """Measure the distance of data and model: -2 ln of the Poisson likelihood ratio, which behaves as chi square."""
    ratio = np.where(contents > 0, contents / expected, 1.0)
    return float(2 * np.sum(expected - contents + contents * np.log(ratio)))


def maximise_likelihood(model: Model, contents: Floats, parameters: Floats) -> tuple[Floats, Floats]:
    """Fit by damped Fisher scoring (Gauss-Newton with the model's own errors); give parameters and information."""
    damping, best = 1e-3, deviance(contents, model(parameters))
    for _ in range(ITERATIONS):
        expected, slopes = model(parameters), derivatives(model, parameters)
        information = slopes.T @ (slopes / expected[:, None])
        gradient = slopes.T @ (contents / expected - 1)
        damped = information + np.diag(damping * np.diag(information) + 1e-12)
        trial = inside_bounds(parameters + step_of_free(damped, gradient, parameters))
        gain = best - deviance(contents, model(trial))
        if gain >= 0:
            parameters, best, damping = trial, best - gain, max(damping / 10, 1e-9)
        else:
            damping *= 10
        if 0 <= gain < 1e-7 or damping > 1e9:
            return parameters, information
    raise PayloadError(68, "FitFailed", f"the fit has not converged after {ITERATIONS} steps")


def step_of_free(damped: Floats, gradient: Floats, parameters: Floats) -> Floats:
    """Solve for the next step, leaving alone the parameters that would only run against their bounds."""
    outward = np.where(gradient > 0, parameters >= HIGHEST_PARAMETERS, parameters <= LOWEST_PARAMETERS)
    free = np.flatnonzero(~outward)
    step = np.zeros_like(parameters)
    step[free] = np.linalg.solve(damped[np.ix_(free, free)], gradient[free])
    return step


def fit(histogram: Histogram) -> Peak:
    """Fit the Z peak."""
    contents = histogram.contents
    if contents.sum() < FEWEST_EVENTS or contents.min() < 0:
        raise PayloadError(68, "FitFailed", f"{contents.sum():g} events are too few: a fit needs {FEWEST_EVENTS}")
    model = functools.partial(expectation, histogram)
    parameters, information = maximise_likelihood(model, contents, starting_point(histogram))
    # Weighted events fluctuate more than their number says.
    scale = float(histogram.variances.sum() / contents.sum())
    errors = np.sqrt(np.maximum(np.diag(np.linalg.pinv(information)), 0) * scale)
    if not 0 < errors[1] < GREATEST_MASS_ERROR_GEV:
        raise PayloadError(
            68, "FitFailed", f"no peak: the mass would be {parameters[1]:.2f} \u00b1 {errors[1]:.2f} GeV"
        )
    return Peak(
        z_mass_gev=float(parameters[1]),
        z_mass_error_gev=float(errors[1]),
        width_gev=float(parameters[2]),
        width_error_gev=float(errors[2]),
        chi_square=deviance(contents, model(parameters)) / scale,
        degrees_of_freedom=len(contents) - len(parameters),
        parameters=parameters,
    )


# --- the plot ---


def draw(path: Path, histogram: Histogram, peak: Peak) -> None:
    """Draw points, curve and pulls into a PNG file."""
    # Imported late and with a folder of its own: matplotlib writes its font list there, and a pilot's user has no home.
    with tempfile.TemporaryDirectory(prefix="matplotlib-", dir=".") as folder:
        os.environ["MPLCONFIGDIR"] = str(Path(folder).resolve())
        from matplotlib import rc_context  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

        with rc_context(STYLE):
            figure = Figure(figsize=(9, 7), dpi=150)
            above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1), gridspec_kw={"hspace": 0.06})
            draw_spectrum(above, histogram, peak)
            draw_pulls(below, histogram, peak)
            figure.align_ylabels((above, below))
            part = path.with_name(path.name + ".part")
            figure.savefig(part, format="png", bbox_inches="tight")
    part.replace(path)


def draw_spectrum(axes: Any, histogram: Histogram, peak: Peak) -> None:
    """Draw the events with the fitted curve and what is to be known about them."""
    # Averaged over the width of a bin, so that the curve is what the points should follow.
    box = np.full(POINTS, 1 / POINTS)
    masses, curve = (np.convolve(column, box, mode="valid") for column in density(histogram, peak.parameters))
    axes.plot(masses, curve, color=CURVE_COLOUR, linewidth=2, label="Breit\u2013Wigner \u2297 radiation")
    filled = histogram.contents > 0
    centres, contents, errors = (
        histogram.centres[filled],
        histogram.contents[filled],
        histogram.variances[filled] ** 0.5,
    )
    axes.errorbar(centres, contents, yerr=errors, **POINT_STYLE, label="Simulated events")
    axes.set(xlim=(histogram.low, histogram.high), ylim=(0, 1.35 * max(histogram.contents.max(), curve.max())))
    axes.set_ylabel(f"Events / {histogram.width:g} GeV", loc="top")
    annotate(axes, histogram, peak)


def annotate(axes: Any, histogram: Histogram, peak: Peak) -> None:
    """Write who, what and the result."""

    def write_lines(x: float, y: float, *lines: str, **style: Any) -> None:
        axes.text(x, y, "\n".join(lines), transform=axes.transAxes, va="top", linespacing=1.7, **style)

    write_lines(0.04, 0.965, r"$\bf{PanDA}$ $\it{Simulation}$", fontsize=17)
    write_lines(
        0.04,
        0.865,
        r"$pp \to Z/\gamma^{*} \to \mu^{+}\mu^{-}$,  $\sqrt{s} = 13$ TeV",
        r"Pythia 8, dressed muons",
        r"$p_{T}^{\mu} > 20$ GeV,  $|\eta^{\,\mu}| < 2.5$",
        f"{histogram.events_selected:,} of {histogram.events_read:,} events".replace(",", "\u202f"),
        fontsize=12,
    )
    write_lines(
        0.96,
        0.76,
        f"$m_{{Z}} = {peak.z_mass_gev:.2f} \\pm {peak.z_mass_error_gev:.2f}$ GeV",
        f"$\\Gamma_{{Z}} = {peak.width_gev:.2f} \\pm {peak.width_error_gev:.2f}$ GeV",
        f"$\\chi^{{2}}$/ndf = {peak.chi_square:.1f} / {peak.degrees_of_freedom}",
        fontsize=14,
        ha="right",
    )
    axes.legend(loc="upper right", fontsize=12, frameon=False, bbox_to_anchor=(0.985, 0.975), reverse=True)


def draw_pulls(axes: Any, histogram: Histogram, peak: Peak) -> None:
    """Draw the difference of each bin from the curve, in units of its error."""
    expected = expectation(histogram, peak.parameters)
    pulls = (histogram.contents - expected) / np.sqrt(expected)
    axes.axhspan(-1, 1, color="0.92", linewidth=0)
    axes.axhline(0, color=CURVE_COLOUR, linewidth=1.5)
    axes.errorbar(histogram.centres, pulls, yerr=1, **POINT_STYLE)
    axes.set(ylim=(-4.5, 4.5), yticks=(-3, 0, 3))
    axes.set_ylabel("Pull")
    axes.set_xlabel("$m_{\\mu\\mu}$  [GeV]", loc="right")


# --- the job ---


def describe(histogram: Histogram, peak: Peak, inputs: list[Path]) -> dict[str, Any]:
    """Put the result into the form that goes to the file."""
    return {
        **{name: value for name, value in vars(peak).items() if name != "parameters"},
        "events": histogram.events_selected,
        "events_read": histogram.events_read,
        "inputs": [path.name for path in inputs],
        "low_gev": histogram.low,
        "high_gev": histogram.high,
        "bins": histogram.contents.tolist(),
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON under another name first, so that half a file is never taken for a whole one."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content) + "\n", encoding="utf-8")
    part.replace(path)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Merge dimuon mass histograms, fit the Z peak and draw it.",
        epilog="example: ./fit.py --inputs h1.json,h2.json --output-plot zpeak.png --output-json zpeak.json",
    )
    parser.add_argument("--inputs", required=True, help="histogram files, separated by commas")
    parser.add_argument("--output-plot", type=Path, required=True, help="name of the PNG file")
    parser.add_argument("--output-json", type=Path, required=True, help="name of the file with the result")
    options = parser.parse_args(arguments)
    options.inputs = [Path(name) for name in options.inputs.split(",") if name]
    if not options.inputs:
        parser.error("--inputs names no file")
    return options


def run(options: argparse.Namespace) -> int:
    """Do the job and give back the number of events behind the result."""
    histogram = merge([read(path) for path in options.inputs])
    print(f"fit: {histogram.events_selected} events from {len(options.inputs)} histograms", flush=True)
    peak = fit(histogram)
    write(options.output_json, describe(histogram, peak, options.inputs))
    draw(options.output_plot, histogram, peak)
    print(
        f"fit: Z mass {peak.z_mass_gev:.3f} +- {peak.z_mass_error_gev:.3f} GeV, plot in {options.output_plot}",
        flush=True,
    )
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
        print(f"fit: {message}", file=sys.stderr)
    report = {"exitCode": code, "exitAcronym": acronym, "exitMsg": message, "nEvents": events}
    Path("jobReport.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
