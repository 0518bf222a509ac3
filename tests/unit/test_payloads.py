"""The physics of the demo: events, histograms and the fit of the Z peak."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PAYLOADS = Path(__file__).resolve().parents[2] / "tools" / "payloads"
Z_MASS_GEV, Z_WIDTH_GEV = 91.188, 2.495


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"payload_{name}", PAYLOADS / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


zmumu, dimuon, fit = load("zmumu"), load("dimuon"), load("fit")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))


def job_report() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("jobReport.json").read_text(encoding="utf-8"))
    return content


# --- events ---


def two_muons(**columns: Any) -> dict[str, Any]:
    """One event: muons back to back, each with half the mass of the Z."""
    pt = Z_MASS_GEV / 2
    event = {
        "metadata": np.array("{}"),
        "run": np.array([1]),
        "event": np.array([1]),
        "weight": np.array([1.0]),
        "charge": np.array([[-1, 1]]),
        "pt": np.array([[pt, pt]]),
        "eta": np.array([[0.0, 0.0]]),
        "phi": np.array([[0.0, math.pi]]),
    }
    return {**event, **columns}


def write_events(path: Path, columns: dict[str, Any]) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, **columns)
    return path


def muons(**columns: Any) -> Any:
    event = two_muons(**columns)
    return dimuon.Muons(*(np.asarray(event[name], dtype=float) for name in ("weight", "charge", "pt", "eta", "phi")))


def test_mass_of_two_muons_back_to_back() -> None:
    assert dimuon.invariant_mass(muons())[0] == pytest.approx(Z_MASS_GEV, abs=1e-3)


@given(
    pt=st.floats(1, 500),
    eta=st.floats(-2.5, 2.5),
    phi=st.floats(-math.pi, math.pi),
    boost=st.floats(-1.5, 1.5),
)
def test_mass_does_not_change_when_the_pair_is_boosted_along_the_beam(
    pt: float, eta: float, phi: float, boost: float
) -> None:
    """For muons of this momentum a boost along the beam is a shift in eta, but for their small mass."""
    at_rest = muons(pt=[[pt, 30.0]], eta=[[eta, 0.4]], phi=[[phi, 0.1]])
    boosted = muons(pt=[[pt, 30.0]], eta=[[eta + boost, 0.4 + boost]], phi=[[phi, 0.1]])
    difference = dimuon.invariant_mass(at_rest)[0] - dimuon.invariant_mass(boosted)[0]
    assert abs(difference) < 0.1


@pytest.mark.parametrize(
    ("columns", "selected"),
    [
        ({}, True),
        ({"pt": [[45.0, 20.0]]}, False),
        ({"pt": [[45.0, 20.1]]}, True),
        ({"eta": [[2.4, -2.4]]}, True),
        ({"eta": [[2.6, 0.0]]}, False),
        ({"eta": [[0.0, -2.6]]}, False),
        ({"charge": [[1, 1]]}, False),
        ({"charge": [[1, -1]]}, True),
    ],
)
def test_acceptance(columns: dict[str, Any], selected: bool) -> None:
    assert dimuon.select(muons(**columns)).tolist() == [selected]


def test_analysis_of_two_files(tmp_path: Path) -> None:
    first = write_events(tmp_path / "a.npz", two_muons())
    second = write_events(tmp_path / "b.npz", two_muons(eta=np.array([[3.0, 0.0]])))
    assert dimuon.main(["--inputs", f"{first},{second}", "--output", "hist.json"]) == 0
    content = json.loads(Path("hist.json").read_text(encoding="utf-8"))
    assert (content["events_read"], content["events_selected"]) == (2, 1)
    assert sum(content["contents"]) == 1 and content["contents"][31] == 1
    assert job_report() == {"exitCode": 0, "exitAcronym": "OK", "exitMsg": "", "nEvents": 2}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no event file"),
        (b"garbage" * 100, "no event file"),
        (b"PK\x03\x04 cut off", "no event file"),
        (two_muons(pt=np.array([[1.0, 2.0, 3.0]])), "pt has the shape"),
        (two_muons(phi=np.array([[math.nan, 0.0]])), "phi holds values"),
        (two_muons(eta=np.array([["a", "b"]])), "no event file"),
        ({"weight": np.array([1.0])}, "no event file"),
        (two_muons(pt=np.array([[object(), None]])), "no event file"),
    ],
)
def test_bad_event_files(content: Any, said: str) -> None:
    path = Path("bad.npz")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_events(path, content)
    assert dimuon.main(["--inputs", "bad.npz", "--output", "hist.json"]) == 66
    assert said in job_report()["exitMsg"] and "bad.npz" in job_report()["exitMsg"]
    assert not Path("hist.json").exists()


@given(junk=st.binary(max_size=300))
def test_no_junk_is_taken_for_events(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.npz"
    path.write_bytes(junk)
    with pytest.raises(dimuon.PayloadError):
        dimuon.read(path)


@given(cut=st.integers(1, 400))
def test_no_half_file_is_taken_for_events(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    whole = io.BytesIO()
    np.savez_compressed(whole, **two_muons())
    path = tmp_path_factory.getbasetemp() / "half.npz"
    path.write_bytes(whole.getvalue()[:-cut])
    with pytest.raises(dimuon.PayloadError):
        dimuon.read(path)


@pytest.mark.parametrize(
    ("payload", "arguments"),
    [
        (dimuon, ["--inputs", "absent.npz", "--output", "h.json"]),
        (fit, ["--inputs", "absent.json", "--output-plot", "z.png", "--output-json", "z.json"]),
    ],
)
def test_missing_input(payload: ModuleType, arguments: list[str]) -> None:
    assert payload.main(arguments) == 65
    assert job_report()["exitAcronym"] == "NoInput" and arguments[1] in job_report()["exitMsg"]


def test_output_that_cannot_be_written() -> None:
    write_events(Path("a.npz"), two_muons())
    assert dimuon.main(["--inputs", "a.npz", "--output", "no/such/folder/h.json"]) == 74
    assert job_report()["exitAcronym"] == "FileError"


# --- histograms ---

finite = st.floats(-1e6, 1e6)
histograms = st.builds(
    lambda contents, variances, ends, counts: fit.Histogram(
        60.0, 120.0, 12, np.array(contents), np.array(variances), *ends, *counts
    ),
    st.lists(finite, min_size=12, max_size=12),
    st.lists(finite, min_size=12, max_size=12),
    st.tuples(finite, finite),
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
)


def numbers(histogram: Any) -> Any:
    ends = [histogram.underflow, histogram.overflow, histogram.events_read, histogram.events_selected]
    return pytest.approx([*histogram.contents, *histogram.variances, *ends], abs=1e-6)


def values(histogram: Any) -> list[float]:
    ends = [histogram.underflow, histogram.overflow, histogram.events_read, histogram.events_selected]
    return [*histogram.contents, *histogram.variances, *ends]


@given(one=histograms, two=histograms, three=histograms)
def test_merging_does_not_depend_on_the_order(one: Any, two: Any, three: Any) -> None:
    together = fit.merge([one, two, three])
    assert values(fit.merge([three, one, two])) == numbers(together)
    assert values(fit.merge([fit.merge([one, two]), three])) == numbers(together)


@given(one=histograms)
def test_one_histogram_is_its_own_sum(one: Any) -> None:
    assert values(fit.merge([one])) == numbers(one)


@given(masses=st.lists(st.floats(0, 200), max_size=50), cut=st.integers(0, 50))
def test_filling_in_two_parts_and_merging_is_filling_at_once(masses: list[float], cut: int) -> None:
    def filled(part: list[float]) -> Any:
        made = dimuon.fill(np.array(part), np.ones(len(part)), events_read=len(part))
        return fit.Histogram(**{name: convert(getattr(made, name)) for name, convert in fit.CONVERTERS.items()})

    merged = fit.merge([filled(masses[:cut]), filled(masses[cut:])])
    assert values(merged) == numbers(filled(masses))


@given(masses=st.lists(st.floats(0, 1000), max_size=50))
def test_no_event_is_lost_in_filling(masses: list[float]) -> None:
    made = dimuon.fill(np.array(masses), np.ones(len(masses)), events_read=99)
    assert sum(made.contents) + made.underflow + made.overflow == len(masses)


def test_edges_belong_to_the_bin_above() -> None:
    made = dimuon.fill(np.array([59.999, 60.0, 61.0, 119.999, 120.0]), np.ones(5), events_read=5)
    assert (made.underflow, made.contents[0], made.contents[1], made.contents[59], made.overflow) == (1, 1, 1, 1, 1)


def test_weights_are_summed_and_their_squares() -> None:
    made = dimuon.fill(np.array([90.5, 90.6]), np.array([2.0, 3.0]), events_read=2)
    assert (made.contents[30], made.variances[30]) == (5.0, 13.0)


def histogram_file(path: Path, **changes: Any) -> Path:
    contents = [float(value) for value in z_peak(5000).contents]
    plain = {
        "low": 60.0,
        "high": 120.0,
        "bins": 60,
        "contents": contents,
        "variances": contents,
        "underflow": 1.0,
        "overflow": 2.0,
        "events_read": 9000,
        "events_selected": 5000,
    }
    path.write_text(json.dumps({**plain, **changes}), encoding="utf-8")
    return path


def z_peak(size: int, *, mass: float = Z_MASS_GEV, seed: int = 1) -> Any:
    """Give a histogram as the production would: fluctuations about the model."""
    empty = fit.Histogram(60.0, 120.0, 60, np.zeros(60), np.zeros(60), 0.0, 0.0, size, size)
    shape = fit.expectation(empty, np.array([1.0, mass, Z_WIDTH_GEV, 0.02, 0.002]))
    contents = np.random.default_rng(seed).poisson(size * shape / shape.sum()).astype(float)
    return fit.Histogram(60.0, 120.0, 60, contents, contents, 0.0, 0.0, size, size)


def test_histograms_of_another_binning_are_refused() -> None:
    histogram_file(Path("a.json"))
    histogram_file(Path("b.json"), high=130.0)
    assert run_fit("a.json,b.json") == 67
    assert "130.0" in job_report()["exitMsg"] and "histogram 2" in job_report()["exitMsg"]
    assert not Path("z.json").exists() and not Path("z.png").exists()


def run_fit(inputs: str) -> int:
    code: int = fit.main(["--inputs", inputs, "--output-plot", "z.png", "--output-json", "z.json"])
    return code


@pytest.mark.parametrize(
    "changes",
    [
        {"contents": [1.0] * 59},
        {"contents": [math.nan] * 60},
        {"contents": "many"},
        {"contents": [[1.0] * 60]},
        {"variances": None},
        {"bins": 0},
        {"bins": 10**9},
        {"bins": "some"},
        {"low": 120.0},
        {"low": -1.0},
        {"high": math.inf},
        {"low": math.nan},
        {"events_read": None},
        {"underflow": {}},
    ],
)
def test_bad_histograms(changes: dict[str, Any]) -> None:
    histogram_file(Path("a.json"), **changes)
    assert run_fit("a.json") == 66
    assert "a.json is no histogram" in job_report()["exitMsg"]


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "not json", "[" * 100_000])
def test_bad_json(text: str) -> None:
    Path("a.json").write_text(text, encoding="utf-8")
    assert run_fit("a.json") == 66


# --- the fit ---


@pytest.mark.parametrize("mass", [85.0, 90.3, Z_MASS_GEV, 95.7])
@pytest.mark.parametrize("size", [500, 2500, 50_000])
def test_the_fit_finds_the_mass(mass: float, size: int) -> None:
    found = fit.fit(z_peak(size, mass=mass))
    assert abs(found.z_mass_gev - mass) < 4 * found.z_mass_error_gev
    assert found.z_mass_error_gev == pytest.approx(0.052 * math.sqrt(2500 / size), rel=0.35)
    assert abs(found.width_gev - Z_WIDTH_GEV) < 4 * found.width_error_gev
    assert found.chi_square < 2 * found.degrees_of_freedom


def test_the_error_is_the_spread_of_repeated_experiments() -> None:
    fits = [fit.fit(z_peak(1000, seed=seed)) for seed in range(60)]
    pulls = [(found.z_mass_gev - Z_MASS_GEV) / found.z_mass_error_gev for found in fits]
    assert 0.75 < np.std(pulls) < 1.3
    assert abs(np.mean(pulls)) < 0.5


def test_weights_do_not_move_the_mass_and_make_the_error_larger() -> None:
    plain = z_peak(5000)
    weighted = fit.Histogram(60.0, 120.0, 60, 0.5 * plain.contents, plain.variances, 0.0, 0.0, 5000, 5000)
    one, two = fit.fit(plain), fit.fit(weighted)
    assert two.z_mass_gev == pytest.approx(one.z_mass_gev, abs=0.01)
    assert two.z_mass_error_gev == pytest.approx(2 * one.z_mass_error_gev, rel=0.05)


def test_model_has_its_maximum_at_the_mass() -> None:
    masses, expected = fit.density(z_peak(100), np.array([100.0, 91.0, 2.5, 0.02, 0.0]))
    assert masses[expected.argmax()] == pytest.approx(91.0, abs=0.2)


def test_radiation_moves_events_down_and_loses_none() -> None:
    """All events of a narrow peak are below it or in it, whatever the strength."""
    empty = z_peak(100)
    sharp, soft = (fit.density(empty, np.array([1.0, 91.0, 0.2, x, 0.0]))[1] for x in (1e-4, 0.05))
    masses = fit.density(empty, np.array([1.0, 91.0, 0.2, 0.05, 0.0]))[0]
    assert soft[masses < 89].sum() > 2 * sharp[masses < 89].sum()
    assert soft[masses > 93].sum() <= sharp[masses > 93].sum()
    assert soft.sum() < sharp.sum() < 1.2 * soft.sum()


def test_too_few_events() -> None:
    histogram_file(Path("a.json"), contents=[0.5] * 60, variances=[0.5] * 60)
    assert run_fit("a.json") == 68
    assert "30 events are too few" in job_report()["exitMsg"]


@settings(max_examples=25)
@given(contents=st.lists(st.integers(0, 1000), min_size=60, max_size=60))
def test_any_spectrum_gives_a_finite_answer_or_a_clear_no(contents: list[int]) -> None:
    numbers_ = np.array(contents, dtype=float)
    try:
        found = fit.fit(fit.Histogram(60.0, 120.0, 60, numbers_, numbers_, 0.0, 0.0, 1, 1))
    except fit.PayloadError as error:
        assert error.code == 68 and str(error)
    else:
        assert 60 <= found.z_mass_gev <= 120 and math.isfinite(found.z_mass_error_gev)


def test_the_plot_and_the_result() -> None:
    histogram_file(Path("a.json"))
    assert run_fit("a.json,a.json") == 0
    assert Path("z.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert Path("z.png").stat().st_size > 20_000
    result = json.loads(Path("z.json").read_text(encoding="utf-8"))
    assert abs(result["z_mass_gev"] - Z_MASS_GEV) < 0.2
    assert 0 < result["z_mass_error_gev"] < 0.1 and 2 < result["width_gev"] < 3
    assert (result["events"], len(result["bins"]), result["inputs"]) == (10_000, 60, ["a.json", "a.json"])
    assert job_report()["nEvents"] == 18_000
    assert sorted(path.name for path in Path().iterdir()) == ["a.json", "jobReport.json", "z.json", "z.png"]


# --- the simulation ---


class StubParticle(SimpleNamespace):
    """A particle of an event record, as far as the payload looks at it."""

    def id(self) -> int:
        return int(self.identity)

    def isFinal(self) -> bool:  # noqa: N802 - Pythia's name
        return bool(self.final)

    def pT(self) -> float:  # noqa: N802 - Pythia's name
        return float(self.momentum)

    def p(self) -> Any:
        return zmumu.pythia8mc.Vec4(self.momentum, 0.0, 0.0, self.momentum)


def particle(identity: int, momentum: float, *, final: bool = True) -> StubParticle:
    return StubParticle(identity=identity, momentum=momentum, final=final)


def test_hardest_pair_is_taken() -> None:
    record = [particle(13, 50, final=False), particle(13, 3), particle(13, 40), particle(-13, 30), particle(211, 90)]
    minus, plus = zmumu.hardest_pair(record)
    assert (minus.pT(), plus.pT()) == (40, 30)


@pytest.mark.parametrize("record", [[], [particle(13, 40)], [particle(13, 40), particle(-13, 4, final=False)]])
def test_no_pair(record: list[StubParticle]) -> None:
    assert zmumu.hardest_pair(record) is None


def test_generator_that_gives_up() -> None:
    generator = SimpleNamespace(next=lambda: False)
    with pytest.raises(zmumu.PayloadError, match="gave up 21 events out of 100"):
        zmumu.generate(generator, 100)


def test_site_without_pythia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmumu, "pythia8mc", None)
    assert zmumu.main(["--seed", "1", "--output", "a.npz"]) == 71
    assert job_report()["exitAcronym"] == "NoGenerator" and "pythia8mc" in job_report()["exitMsg"]


@pytest.mark.parametrize("seed", ["0", "-1", "900000001", "x", "1.5"])
def test_bad_seed(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        zmumu.main([f"--seed={seed}", "--output", "a.npz"])
    assert seed in capsys.readouterr().err


def test_bad_number_of_events(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        zmumu.main(["--seed", "1", "--events", "0", "--output", "a.npz"])
    assert "--events 0" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["zmumu.py", "dimuon.py", "fit.py"])
def test_help_has_an_example(name: str) -> None:
    path = PAYLOADS / name
    assert os.access(path, os.X_OK) and path.read_text(encoding="utf-8").startswith("#!/usr/bin/env python3\n")
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=True)
    assert f"example: ./{name}" in done.stdout


def run_payload(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as the pilot does: by its name, in an environment that holds a PATH and nothing else."""
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    return subprocess.run([str(PAYLOADS / name), *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_chain_for_real() -> None:
    for seed in (1, 2):
        done = run_payload("zmumu.py", "--seed", str(seed), "--events", "200", "--output", f"z{seed}.npz")
        assert done.returncode == 0, done.stderr
        assert "100 of 200 events" in done.stdout and "PYTHIA" not in done.stdout and done.stderr == ""
        assert job_report() == {"exitCode": 0, "exitAcronym": "OK", "exitMsg": "", "nEvents": 200}
    again = run_payload("zmumu.py", "--seed", "2", "--events", "200", "--output", "again.npz")
    assert again.returncode == 0 and Path("again.npz").read_bytes() == Path("z2.npz").read_bytes()
    assert Path("z1.npz").read_bytes() != Path("z2.npz").read_bytes() and Path("z1.npz").stat().st_size < 20_000

    with np.load("z1.npz", allow_pickle=False) as columns:
        assert json.loads(str(columns["metadata"]))["energy_gev"] == 13000
        assert columns["run"].tolist() == [1] * 200 and columns["event"].tolist() == list(range(1, 201))
        assert columns["charge"].tolist() == [[-1, 1]] * 200

    assert run_payload("dimuon.py", "--inputs", "z1.npz,z2.npz", "--output", "h.json").returncode == 0
    done = run_payload("fit.py", "--inputs", "h.json", "--output-plot", "z.png", "--output-json", "z.json")
    assert done.returncode == 0, done.stderr
    assert abs(json.loads(Path("z.json").read_text(encoding="utf-8"))["z_mass_gev"] - Z_MASS_GEV) < 2
