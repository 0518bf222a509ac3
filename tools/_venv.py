"""Makes the project's virtual environment and runs the calling tool inside it; uses the standard library only."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
# Preferred, because the unprivileged users that run pilots, and mod_wsgi, can execute it wherever it was installed.
SYSTEM_PYTHON = "/usr/bin/python3"
EXTRAS = "[test,demo]"
SUBFOLDERS = ("pandapilot", "schedulers", "pandamonitor")
APT_GET = ("apt-get", "-o", "DPkg::Lock::Timeout=300")
PYTHIA_WHEELS = "Python 3.11 to 3.13 on Linux (x86_64) and macOS (arm64)"


class SetupError(Exception):
    """The environment cannot be made; the text says why and what to do."""


def enter() -> None:
    """Return inside the environment: make it where needed, then start the calling script again in it."""
    directory = environment_directory()
    try:
        with locked(directory):
            if not is_ready(directory):
                build(directory)
    except SetupError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    if Path(sys.prefix).resolve() != directory.resolve():
        python = str(directory / "bin" / "python")
        os.execv(python, [python, *sys.argv])


def environment_directory() -> Path:
    """Take $PANDA_VENV, else .venv beside the sources."""
    return Path(os.environ.get("PANDA_VENV") or ROOT / ".venv").absolute()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the environment alone, so that two tools started at once do not install into each other."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another tool that prepares {directory}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_ready(directory: Path) -> bool:
    """Tell whether everything that the tree asks for was installed here before."""
    stamp = stamp_file(directory)
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == fingerprint(directory)


def stamp_file(directory: Path) -> Path:
    """Name the file that remembers what was installed."""
    return directory / "panda-installed"


def fingerprint(directory: Path) -> str:
    """Change whenever the declared dependencies, the interpreter or the place of the tree do."""
    digest = hashlib.sha256()
    digest.update(f"{ROOT}\n{directory}\n{os.path.realpath(directory / 'bin' / 'python')}\n{EXTRAS}\n".encode())
    for folder in (ROOT, *(ROOT / name for name in SUBFOLDERS)):
        for name in ("setup.cfg", "pyproject.toml"):
            content = read_declaration(folder / name)
            digest.update(f"{folder.name}/{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def read_declaration(path: Path) -> bytes:
    """Read one packaging file; without it the tree is not a PanDA tree."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}; is the checkout complete? Try: git status") from error


def build(directory: Path) -> None:
    """Create the environment where there is no working one, install the four distributions, leave the stamp."""
    python = directory / "bin" / "python"
    if not answers(str(python), "import pip"):
        create(directory)
    install(python)
    stamp_file(directory).write_text(fingerprint(directory), encoding="utf-8")
    say("ready")


def create(directory: Path) -> None:
    """Make an empty environment with pip in it."""
    interpreter = find_interpreter()
    say(f"making {directory} with {interpreter}")
    done = subprocess.run([interpreter, "-m", "venv", "--clear", str(directory)], capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"{interpreter} -m venv {directory} failed:\n{done.stdout}{done.stderr}")


def find_interpreter() -> str:
    """Choose a Python that is new enough and can make environments; as root, teach the system's to."""
    recent = f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    candidates = [python for python in (SYSTEM_PYTHON, sys.executable) if answers(python, recent)]
    if not candidates:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        raise SetupError(f"Python {wanted} or newer is needed; this is {platform.python_version()} ({sys.executable})")
    if candidates[0] == SYSTEM_PYTHON and os.geteuid() == 0 and not can_make_environments(SYSTEM_PYTHON):
        apt_install(["python3-venv"])
    for python in candidates:
        if can_make_environments(python):
            return python
    raise SetupError(f"{candidates[0]} has no venv module. Run: sudo apt-get install -y python3-venv")


def can_make_environments(python: str) -> bool:
    """Tell whether venv and the pip that it needs are there; Debian has them in a package of their own."""
    return answers(python, "import venv, ensurepip")


def answers(python: str, statement: str) -> bool:
    """Tell whether this interpreter exists and runs the statement without an error."""
    try:
        return subprocess.run([python, "-I", "-c", statement], capture_output=True).returncode == 0
    except OSError:
        return False


def apt_install(packages: list[str]) -> None:
    """Install Debian packages as root, or say the command that does."""
    command = [*APT_GET, "install", "-y", "--no-install-recommends", *packages]
    shown = " ".join(["sudo", "apt-get", *command[len(APT_GET) :]])
    if os.geteuid() != 0:
        raise SetupError(f"not installed: {' '.join(packages)}. Run: {shown}")
    say(f"installing {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run([*APT_GET, "update"], env=environment, capture_output=True, check=False)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SetupError(f"no apt-get on this system; install what these hold: {' '.join(packages)}") from None
    if done.returncode:
        raise SetupError(f"this failed: {shown}\n{tail(done.stdout + done.stderr)}")


def install(python: Path) -> None:
    """Install the four distributions editable, with what tests and demo need."""
    say("installing the Python packages (a minute or two, the first time)")
    targets = [f"{ROOT}{EXTRAS}", *(str(ROOT / name) for name in SUBFOLDERS)]
    editable = [word for target in targets for word in ("-e", target)]
    # A source build of pythia8mc takes many minutes and a C++ compiler: rather fail and say so.
    command = [str(python), "-m", "pip", "install", "--only-binary", "pythia8mc", *editable]
    returncode, lines = run_showing_progress(command)
    if returncode:
        raise SetupError(explain(lines, version_of(python)))


def run_showing_progress(command: list[str]) -> tuple[int, list[str]]:
    """Run pip and name each package as it comes; give back the exit code and all that pip said."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith(("Collecting ", "Installing ")):
                say("  " + lines[-1][:100])
    return process.returncode, lines


def version_of(python: Path) -> str:
    """Ask an interpreter for its version and platform."""
    statement = "import platform as p; print(p.python_version(), 'on', p.system(), p.machine())"
    return subprocess.run([str(python), "-c", statement], capture_output=True, text=True, check=True).stdout.strip()


def explain(lines: list[str], version: str) -> str:
    """Turn what pip said into what went wrong and what to do."""
    # What a build says is indented.
    lines = [line.strip() for line in lines]
    errors = list(dict.fromkeys(line for line in lines if line.startswith("ERROR:"))) or lines[-10:]
    text = "pip could not install what is needed:\n" + "\n".join(f"  {line}" for line in errors)
    if any(line.startswith("WARNING: Retrying") for line in lines):
        return (
            f"{text}\nThe package index could not be reached: check the network and the proxy settings, and try again."
        )
    if any("No matching distribution found for pythia8mc" in line for line in errors):
        return (
            f"{text}\nThe demo simulates with Pythia 8, and pythia8mc has no binary wheel for Python {version}.\n"
            f"There are wheels for {PYTHIA_WHEELS}: start this tool with such a Python, or have it as {SYSTEM_PYTHON}."
        )
    return text


def tail(text: str, lines: int = 15) -> str:
    """Keep the end of a long output, where the reason stands."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def say(message: str) -> None:
    """Report progress where it does not mix with a tool's results."""
    print(f"[environment] {message}", file=sys.stderr, flush=True)
