#!/usr/bin/env python3
"""pail under systemd: what it says, the socket that it is handed, and the units of deploy/systemd.

    tests/systemd.py target/release/pail [--require]

systemd itself is not run: a socket stands for it, which hears what the server says. The socket that is handed over is
systemd-socket-activate's, and the units are judged by systemd-analyze. With --require it fails where these two are missing.
"""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from world import DEADLINE_S, Running, Server, Wrong, end_as_told, has, pail_to_test, require, run_beside_each_other, until

UNITS = Path(__file__).resolve().parent.parent / "deploy" / "systemd"
WATCHDOG_S, LIVES = 0.5, 4
# Of 100: what of the system somebody could reach who has taken the process over.
EXPOSURE_MAX = 15  # it is 12


class Systemd:
    """What systemd would be told, for as long as a `with` lasts."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        path = f"{self.folder.name}/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(DEADLINE_S)
        os.environ |= {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        return self

    def __exit__(self, *_):
        del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
        self.socket.close()
        self.folder.cleanup()

    def hears(self, word):
        """Waits for a message with this line: all of it, as a dictionary."""
        while True:
            try:
                message = self.socket.recv(4096).decode()
            except TimeoutError:
                raise Wrong(f"systemd was never told {word}") from None
            if word in message.splitlines():
                return dict(line.split("=", 1) for line in message.splitlines())


def says_what_it_does(binary):
    with Systemd() as systemd:
        with Server(binary) as server:
            systemd.hears("READY=1")
            begun = time.monotonic()
            for _ in range(LIVES):
                systemd.hears("WATCHDOG=1")
            took = time.monotonic() - begun
            require(took < LIVES * WATCHDOG_S, f"{LIVES} signs of life in {took:.1f} s")
            before_us = time.monotonic_ns() // 1000
            server.signal(signal.SIGHUP)
            at_us = int(systemd.hears("RELOADING=1")["MONOTONIC_USEC"])
            require(before_us <= at_us <= time.monotonic_ns() // 1000, f"it was told of a reload at {at_us} µs")
            systemd.hears("READY=1")
            server.signal(signal.SIGTERM)
            systemd.hears("STOPPING=1")
            server.wait()
    return f"ready, {LIVES} signs of life in {took:.1f} s, reloading, ready, stopping"


def is_silent_where_nobody_listens(binary):
    os.environ["NOTIFY_SOCKET"] = "/there/is/none"
    try:
        with Server(binary) as server:
            server.do("list")
            until(lambda: any("systemd does not listen" in line for line in server.log), "a warning")
    finally:
        del os.environ["NOTIFY_SOCKET"]
    return "a warning, and it serves"


def takes_the_socket_that_it_is_handed(binary):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = "%s:%d" % free.getsockname()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PAIL_")}
    # Port 1 could not be had.
    words = ["systemd-socket-activate", "--listen", address, binary, "serve", "--listen", "192.0.2.1:1"]
    with Running(words, env=env, stderr=subprocess.DEVNULL) as running:
        listed = lambda: subprocess.run([binary, "list", "--addr", address], env=env, capture_output=True, check=False)
        until(lambda: listed().returncode == 0, "an answer on the socket")
        running.signal(signal.SIGTERM)
        require(running.wait() == 0, "it did not drain")
    return "it answers there, and not where --listen says"


def units_are_right(binary):
    with tempfile.TemporaryDirectory() as folder:
        for unit in UNITS.iterdir():
            # The path that is there, for one that a package would have installed.
            Path(folder, unit.name).write_text(unit.read_text().replace("/usr/bin/pail", str(binary)))
        units = sorted(str(path) for path in Path(folder).iterdir())
        analyze = {"capture_output": True, "text": True, "check": False, "env": os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:"}}
        verified = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], **analyze)
        said = verified.stdout + verified.stderr
        require(verified.returncode == 0 and "pail" not in said, said)
        words = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", *units[:1]]
        exposed = subprocess.run(words, **analyze)
        last = (exposed.stdout + exposed.stderr).strip().splitlines()[-1]
        require(exposed.returncode == 0, last)
    return last.removeprefix("→ ").strip()


def main():
    pail = pail_to_test(__doc__, has("systemd-socket-activate", "systemd-analyze"))
    cases = (says_what_it_does, is_silent_where_nobody_listens, takes_the_socket_that_it_is_handed, units_are_right)
    # One after the other: what systemd says is in the environment.
    wrong = sum(run_beside_each_other([(case.__name__.replace("_", " "), partial(case, pail))]) for case in cases)
    if wrong:
        raise Wrong(f"{wrong} cases went wrong")


if __name__ == "__main__":
    end_as_told(main)
