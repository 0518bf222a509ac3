"""The first process of a rehearsed machine: mounts what a kernel gives, brings loopback up, and buries the dead.

It runs inside new namespaces, so that all that it mounts is gone with it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_READY = "ready\n"


def boot(root: Path, name: str) -> None:
    """Become the first process of the machine; never comes back."""
    socket.sethostname(name)
    mounts = (
        ("-t", "proc", "proc", root / "proc"),
        ("--rbind", "/dev", root / "dev"),
        ("-t", "tmpfs", "tmpfs", root / "dev/shm"),
        ("-t", "sysfs", "-o", "ro", "sysfs", root / "sys"),
        ("-t", "tmpfs", "-o", "mode=755", "tmpfs", root / "run"),
    )
    for words in mounts:
        subprocess.run(["mount", *map(str, words)], check=True)
    bring_up_loopback()
    os.chroot(root)
    os.chdir("/")
    sys.stdout.write(_READY)
    sys.stdout.flush()
    bury()


def bring_up_loopback() -> None:
    """Let the machine speak with itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def bury() -> None:
    """Wait for the end of processes whose parents ended before them."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.sigtimedwait([signal.SIGCHLD], 1)


if __name__ == "__main__":
    boot(Path(sys.argv[1]), sys.argv[2])
