"""The generators, which take less than what they load: h2load for every gRPC server, redis-benchmark for Redis."""

import csv
import re
import resource
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from world import DEADLINE_S, Running, Wrong

# To find out how many requests fill the time, before anything is measured.
CALIBRATION_S = 0.3
# No generator may take more than so many times the time it was given.
OVERRUN = 10
# h2load's windows in bits: 1 GiB, so that only the server is waited for.
WINDOW_BITS = 30


@dataclass
class Ran:
    requests: int
    seconds: float
    generator_s: float  # CPU time


def output_of(command, within_s):
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=within_s, check=False)
    except subprocess.TimeoutExpired:
        raise Wrong(f"not over after {within_s:.0f} s: {command}") from None
    if done.returncode:
        raise Wrong(f"ended with {done.returncode}: {command}\n{done.stdout}{done.stderr}")
    return done.stdout


def found(pattern, text):
    match = re.search(pattern, text)
    if match is None:
        raise Wrong(f"no {pattern} in:\n{text}")
    return match[1]


def cpu_of_the_ended_s():
    """CPU time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@dataclass
class Load:
    """A closed loop: the next request goes out when an answer is in. It sends `requests_least` at a time, or more."""

    requests_least: int = field(default=2000, kw_only=True)

    def requests_in(self, address, seconds):
        """How many requests take about so long, which also warms the server up."""
        requests = self.requests_least
        while (ran := self.run(address, requests)).seconds < CALIBRATION_S and ran.seconds < seconds:
            requests = int(requests * min(10, 1.5 * CALIBRATION_S / max(ran.seconds, 1e-3)) + 1)
        return max(int(ran.requests / ran.seconds * seconds), self.requests_least)


@dataclass
class H2Load(Load):
    """The same body again and again, over `connections` with `streams` each.

    To h2load every answer of HTTP status 200 is a success, whatever the status of gRPC: so the DATA of all answers
    together is held against `answer_bytes`, the least and the most of one. A refusal has none.
    """

    path: str
    body: Path
    connections: int
    streams: int
    answer_bytes: tuple[float, float]
    scheme: str = field(default="http", kw_only=True)

    def command(self, address, requests):
        shape = ["-t", 1, "-c", self.connections, "-m", self.streams, "-n", requests]
        windows = ["-w", WINDOW_BITS, "-W", WINDOW_BITS]
        grpc = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", self.body]
        return ["h2load", *shape, *windows, *grpc, f"{self.scheme}://{address}{self.path}"]

    def run(self, address, requests, within=()):
        requests = max(requests, self.connections)  # fewer it refuses
        before = cpu_of_the_ended_s()
        text = output_of([*within, *self.command(address, requests)], OVERRUN * DEADLINE_S)
        generator_s = cpu_of_the_ended_s() - before
        if int(found(r"(\d+) succeeded", text)) != requests:
            raise Wrong(f"{self.path}: {found(r'(requests: .+)', text)}")
        least, most = self.answer_bytes
        each = int(found(r"\((\d+)\) data", text)) / requests
        if not least <= each <= most:
            raise Wrong(f"{self.path}: an answer has {each} bytes, and not {least} to {most}")
        return Ran(requests, requests / float(found(r"([\d.]+) req/s", text)), generator_s)

    def started(self, address, requests):
        """The same, running, for as long as a `with` lasts."""
        return Running(self.command(address, requests), stdout=subprocess.DEVNULL)


class H2LoadAnew(H2Load):
    """A connection for each request."""

    def requests_in(self, address, seconds):
        self.run(address, self.connections)
        return self.connections


@dataclass
class RedisBenchmark(Load):
    """GET of one key."""

    connections: int
    pipeline: int
    value_bytes: int

    def command(self, address, requests, test="get"):
        host, port = address.split(":")
        shape = ["-c", self.connections, "-P", self.pipeline, "-n", requests, "-d", self.value_bytes]
        return ["redis-benchmark", "-h", host, "-p", port, "-t", test, *shape, "--csv"]

    def put(self, address):
        """Puts what is got, which has to be done first: to redis-benchmark a GET of what is not there is as good."""
        output_of(self.command(address, self.connections, "set"), DEADLINE_S)

    def run(self, address, requests, within=()):
        requests = max(requests, self.connections * self.pipeline)
        before = cpu_of_the_ended_s()
        text = output_of([*within, *self.command(address, requests)], OVERRUN * DEADLINE_S)
        generator_s = cpu_of_the_ended_s() - before
        [row] = csv.DictReader(text.splitlines())
        return Ran(requests, requests / float(row["rps"]), generator_s)
