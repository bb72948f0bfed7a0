"""The servers that are compared: found, built or installed; started on free ports of the loopback, and ended by pid."""

import functools
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from load import output_of
from world import DEADLINE_S, Running, Wrong, free_ports, until

ROOT = Path(__file__).resolve().parent.parent.parent
# Nothing that is built for a comparison lies elsewhere.
BUILT = ROOT / "target" / "benches"
BUILD_S = 30 * 60


class NotMeasured(Wrong):
    """Something can't be measured here, and why."""


def run(*command, within_s=BUILD_S, **options):
    words = [str(word) for word in command]
    print(f"       {' '.join(words)}".replace(f"{ROOT}/", ""), flush=True)
    done = subprocess.run(words, text=True, capture_output=True, timeout=within_s, check=False, **options)
    if done.returncode:
        raise NotMeasured(f"`{' '.join(words)}` ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


@functools.cache
def need(program, package):
    """A program of Debian's."""
    if shutil.which(program):
        return
    if os.geteuid() != 0:
        raise NotMeasured(f"{program} is not there: apt-get install {package}")
    quiet = ["apt-get", "--quiet", "--quiet", "--yes", "--no-install-recommends"]
    run("apt-get", "--quiet", "--quiet", "update")
    run(*quiet, "install", package, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
    # Some packages start what they bring; what is measured is started here.


@functools.cache
def pail():
    run("cargo", "build", "--release", "--locked", cwd=ROOT)
    return ROOT / "target" / "release" / "pail"


@functools.cache
def stock(binary):
    manifest = ROOT / "benches" / "stock-tonic" / "Cargo.toml"
    target = BUILT / "stock-tonic"
    run("cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", target)
    return target / "release" / binary


@functools.cache
def etcd():
    """From the Go module proxy. Not by `go install`, which refuses a module with replacements."""
    if not shutil.which("go"):
        raise NotMeasured("go is not there, to build etcd with")
    binary = BUILT / "etcd"
    run("go", "build", "-o", binary, "go.etcd.io/etcd/server/v3", cwd=ROOT / "benches" / "etcd")
    return binary


@functools.cache
def core():
    """The binary of benches/core, which measures pail's core in its own process."""
    manifest = ROOT / "benches" / "core" / "Cargo.toml"
    # Its lock file follows pail's own, so it may have to be changed.
    build = ["cargo", "bench", "--no-run", "--message-format", "json", "--target-dir", BUILT / "core"]
    messages = map(json.loads, run(*build, "--manifest-path", manifest).splitlines())
    [binary] = [made["executable"] for made in messages if made.get("target", {}).get("kind") == ["bench"]]
    return binary


def core_ns(name):
    """Nanoseconds an iteration, criterion's median, of the benchmark `group/contender`."""
    home = BUILT / "criterion"
    # A colour or a plot is no use to anybody here.
    environment = os.environ | {"CRITERION_HOME": str(home)}
    run(core(), "--bench", f"^{re.escape(name)}$", "--noplot", "--color", "never", env=environment)
    estimates = [path for path in home.glob("*/*/new/estimates.json") if benchmark_of(path) == name]
    if len(estimates) != 1:
        raise Wrong(f"criterion knows no {name}")
    return json.loads(estimates[0].read_text())["median"]["point_estimate"]


def benchmark_of(estimates):
    """What criterion calls a benchmark; its directories have other names."""
    return json.loads((estimates.parent / "benchmark.json").read_text())["full_id"]


class Stock(Running):
    """A server of benches/stock-tonic, which prints its address."""

    def __init__(self, binary, *arguments, **options):
        super().__init__([stock(binary), *arguments], stdout=subprocess.PIPE, **options)
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            raise Wrong(f"{binary} did not start")


class StockTonic(Stock):
    """tonic as it comes, with values of so many bytes, and scans that take so long; tokio takes as many threads as there
    are processors, where it isn't said."""

    def __init__(self, value_bytes, scan_us=0, threads=None):
        threads = {} if threads is None else {"TOKIO_WORKER_THREADS": str(threads)}
        super().__init__("stock-tonic", value_bytes, scan_us, env=os.environ | threads)


class PlainHyper(Stock):
    """hyper as it comes, which answers 415."""

    def __init__(self):
        super().__init__("plain-hyper")


class Listening(Running):
    """A server that was told its port, and is awaited there."""

    def __init__(self, command, port):
        self.address = f"127.0.0.1:{port}"
        super().__init__(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(self.accepts, f"{command[0]} listens on {self.address}")
        except Wrong:
            super().__exit__()
            raise

    def accepts(self):
        if self.process.poll() is not None:
            raise Wrong(f"it ended with {self.process.returncode}: {self.command}")
        host, port = self.address.split(":")
        with socket.socket() as attempt:
            return attempt.connect_ex((host, int(port))) == 0


class Redis(Listening):
    """In memory alone."""

    def __init__(self):
        [port] = free_ports(1)
        nothing_kept = ["--save", "", "--appendonly", "no"]
        super().__init__(["redis-server", "--bind", "127.0.0.1", "--port", port, *nothing_kept], port)


class Etcd(Listening):
    """One node that does not wait for its disk, since pail has none."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="etcd-")
        ports = free_ports(2)
        client, peer = (f"http://127.0.0.1:{port}" for port in ports)
        urls = ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
        itself = ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        command = [etcd(), "--data-dir", self.directory.name, "--unsafe-no-fsync", *urls, *itself]
        super().__init__(command, ports[0])

    def __exit__(self, *_):
        super().__exit__()
        self.directory.cleanup()


def beam(figure):
    """One figure of benches/beam.exs, which measures what it does in Elixir's own machine."""
    need("elixir", "elixir")
    return float(output_of(["elixir", ROOT / "benches" / "beam.exs", figure], 4 * DEADLINE_S))


def versions(binary):
    """Of all that takes part and is there."""
    asked = {
        "pail": [binary, "--version"],
        "benches/": ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"],
        "rustc": ["rustc", "--version"],
        "h2load": ["h2load", "--version"],
        "redis": ["redis-server", "--version"],
        "etcd": [BUILT / "etcd", "--version"],
        "elixir": ["elixir", "--short-version"],
        "go": ["go", "version"],
    }
    found = {}
    for name, command in asked.items():
        if shutil.which(str(command[0])):
            told = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
            found[name] = told.stdout.partition("\n")[0]
    lock = (ROOT / "benches" / "stock-tonic" / "Cargo.lock").read_text().split("[[package]]")
    for package in lock:
        lines = package.strip().splitlines()
        if lines[0] in ('name = "tonic"', 'name = "hyper"', 'name = "h2"', 'name = "tokio"'):
            found[lines[0].split('"')[1]] = lines[1].split('"')[1]
    return found
