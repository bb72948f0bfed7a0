#!/usr/bin/env python3
"""Memory at its bound, and keys that are chosen to be slow.

    tests/limits.py target/release/pail [--require]

A server that may hold 64 MiB lives in a cgroup of twice that, without swap, which the kernel would kill it
for leaving. Clients fill it until it refuses, and then change what is there, again and again and in other sizes, which
is the worst for an allocator: it must live, and answer, and take more again when half of it is gone. And 100,000 keys, or names, that collide in a hash without a
secret (h = 31 h + c, Java's) may cost at most 1.2 times what random ones cost.

With --require it fails where root or a memory cgroup is missing.
"""

import itertools
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benches" / "comparison"))

import messages as m
from gauge import cpu_s, settled
from wire import Connections
from world import DEADLINE_S, Server, end_as_told, pail_to_test, require, until

MIB = 1 << 20
CAP, CGROUP = 64 * MIB, 128 * MIB
# So much more than the bound for the process may be taken: what was on its way, and what is the kernel's.
BEYOND = 8 * MIB
CHURN_S, STREAMS, PUT, DELETE = 10, 50, 7, 9
SERVICE = "/pail.v1.BucketService/"
BUCKETS = 50
# What is put first, and what takes its place: each in one frame with others of its kind.
FIRST_SIZES, SIZES = (10, 15_000), (10, 100, 1_000, 3_000, 7_000, 15_000)
STRINGS, PASSES, COST_MAX, TRIES = 100_000, 3, 1.2, 5


class Cgroup:
    """A group with so much memory, for as long as a `with` lasts."""

    ROOT, OLD_ROOT = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")

    def __init__(self, memory_bytes):
        self.is_old = self.OLD_ROOT.is_dir()
        self.directory = (self.OLD_ROOT if self.is_old else self.ROOT) / f"pail-{os.getpid()}"
        self.memory_bytes = memory_bytes

    @classmethod
    def is_there(cls):
        try:
            with cls(CGROUP):
                return True
        except OSError:
            return False

    def __enter__(self):
        self.directory.mkdir()
        try:
            (self.directory / ("memory.limit_in_bytes" if self.is_old else "memory.max")).write_text(str(self.memory_bytes))
            without_swap = self.directory / ("memory.swappiness" if self.is_old else "memory.swap.max")
            if without_swap.exists():
                without_swap.write_text("0")
        except OSError:
            self.__exit__()
            raise
        return self

    def take(self, pid):
        (self.directory / "cgroup.procs").write_text(str(pid))

    def default_in(self, pail, setting):
        """What a number would be for a server that is started in it."""
        words = f"echo $$ > {self.directory}/cgroup.procs && exec {pail} serve --print-config"
        settings = subprocess.run(["sh", "-c", words], text=True, capture_output=True, check=True).stdout
        return int(re.findall(rf"^# {setting} = (\d+) *# default$", settings, re.M)[0])

    def most(self):
        """What its processes took at most."""
        name = "memory.max_usage_in_bytes" if self.is_old else "memory.peak"
        return int((self.directory / name).read_text())

    def kills(self):
        name = "memory.oom_control" if self.is_old else "memory.events"
        return int(re.findall(r"^oom_kill (\d+)$", (self.directory / name).read_text(), re.M)[0])

    def __exit__(self, *_):
        self.directory.rmdir()


class Refusals(Connections):
    """Pipelines on one connection, and how many of their answers say that there is no memory."""

    MARKER = b"OUT_OF_MEMORY"

    def __init__(self, address):
        super().__init__(address, 1)
        [one] = self.all
        self.read_until(lambda: one.room > STREAMS * 16_384, "room for as much as is sent at a time")

    def send(self, messages):
        """Each message on a stream of its own, some at a time; returns how often the marker is in the answers."""
        [one] = self.all
        one.markers, one.tail = 0, b""
        for at in range(0, len(messages), STREAMS):
            some, end = messages[at : at + STREAMS], time.monotonic() + DEADLINE_S
            # What a busy server turns away as a whole is sent again, as it asks for.
            while some:
                require(time.monotonic() < end, "calls are turned away as a whole, again and again")
                one.answered.clear()
                one.ended.clear()
                streams = [one.prepare(SERVICE + "Pipeline", message) for message in some]
                one.send()
                self.read_until(lambda: len(one.ended) >= len(some), "all answers", self.MARKER)
                some = [message for stream, message in zip(streams, some) if stream not in one.answered]
        return one.markers


def puts(rng, numbers, size):
    """Puts of these numbers' keys, in values of this size, as large messages as a frame takes."""
    value = "v" * size
    each = max(1, 15_500 // (size + 60))
    wanted = [m.put(f"b{number % BUCKETS}", f"key-{number}", value) for number in numbers]
    rng.shuffle(wanted)
    return [m.pipeline(PUT, wanted[at : at + each], each) for at in range(0, len(wanted), each)]


def fill(client, rng, size, share):
    """Puts more until it is refused, or a share of the memory was sent; returns the numbers of the keys."""
    number, sent = size * 1_000_000, 0
    first = number
    while sent < share:
        count = STREAMS * max(1, 15_500 // (size + 60))
        refused = client.send(puts(rng, range(number, number + count), size))
        number, sent = number + count, sent + count * (size + 150)
        if refused:
            break
    return list(range(first, number))


def lives_at_its_bound(binary):
    seed = int(os.environ.get("PAIL_SEED", time.time_ns() % (1 << 32)))
    print(f"seed {seed}", flush=True)
    rng = random.Random(seed)
    with Cgroup(CGROUP) as cgroup:
        bound = cgroup.default_in(binary, "resident-bytes-max")
        require(bound == CGROUP // 8 * 7, f"its bound is {bound}")
        return lives_in(cgroup, bound, rng, Server(binary, "--memory-bytes-max", str(CAP), "--resident-bytes-max", str(bound)))


def lives_in(cgroup, bound, rng, server):
    with server:
        # What it took before is not much, and is not counted.
        cgroup.take(server.pid)
        for number in range(BUCKETS):
            server.do("create", f"b{number}")
        with Refusals(server.address) as client:
            keys = [key for size in FIRST_SIZES for key in fill(client, rng, size, CAP * 2 // 3)]
            rounds = refused = 0
            end = time.monotonic() + CHURN_S
            while time.monotonic() < end:
                gone = rng.sample(keys, len(keys) // 10)
                deletes = [m.field(1, f"b{key % BUCKETS}") + m.field(3, f"key-{key}") for key in gone]
                client.send([m.pipeline(DELETE, deletes[at : at + 200], 200) for at in range(0, len(deletes), 200)])
                size = rng.choice(SIZES)
                refused += client.send(puts(rng, rng.sample(keys, min(len(keys), 40_000_000 // (size + 200))), size))
                rounds += 1
            require(refused > 0, "the bound was not met")
        require(server.process.poll() is None, "it lives")
        code, output = server.ask("put", "b1", "more", "x" * 100_000)
        require(code == 0 or "OUT_OF_MEMORY" in output, output)
        for number in range(0, BUCKETS, 2):
            server.do("stop", f"b{number}")
        until(lambda: server.ask("put", "b1", "more", "x" * 1_000)[0] == 0, "it takes more")
        server.do("get", "b1", "more")
        most, kills = cgroup.most(), cgroup.kills()
        require(kills == 0, f"{kills} kills")
        require(most <= bound + BEYOND, f"{most / MIB:.0f} MiB, of {bound / MIB:.0f} before it refuses")
    return f"{rounds} rounds, {refused:,} refused, {most / MIB:.0f} of {CGROUP / MIB:.0f} MiB at most, no kill"


def cost_us(binary, texts, kind, request, is_there):
    """CPU time of the server's for a request with each of these texts."""
    requests = [request(text) for text in texts]
    messages = [m.pipeline(kind, requests[at : at + 200], 200) for at in range(0, len(requests), 200)]
    with Server(binary) as server, Refusals(server.address) as client:
        server.do("create", "b")
        before = cpu_s(server.pid)
        for _ in range(PASSES):
            client.send(messages)
        settled(server.pid)
        took_s = cpu_s(server.pid) - before
        # Those that were refused would cost the same, too.
        for text in (texts[0], texts[-1]):
            require(server.ask(*is_there, text)[0] == 0, f"{text} is there")
    return took_s / (PASSES * len(requests)) * 1e6


def strings_that_collide_cost_the_same(binary):
    rng = random.Random(1)
    # "Aa" and "BB" have the same hash, and so has whatever is made of them.
    colliding = ["".join(pairs) for pairs in itertools.islice(itertools.product(("Aa", "BB"), repeat=17), STRINGS)]
    letters = ["".join(rng.choices("ABab", k=34)) for _ in range(STRINGS)]
    rng.shuffle(colliding)
    seen = []
    puts_key = ("keys", PUT, lambda key: m.put("b", key, ""), ("get", "b"))
    for what, *how in (puts_key, ("names", m.CREATE, m.create, ("lookup",))):
        cost = [cost_us(binary, texts, *how) for texts in (colliding, letters) * TRIES]
        # The least of each: what more they took was somebody else's doing.
        ratio = min(cost[::2]) / min(cost[1::2])
        seen.append(f"{what}: CPU × {ratio:.2f}")
        require(ratio <= COST_MAX, f"{seen}, of {cost}")
    return f"{STRINGS:,} {', '.join(seen)}"


def main():
    binary = pail_to_test(__doc__, {"root, with a memory cgroup": Cgroup.is_there()})
    for case in (lives_at_its_bound, strings_that_collide_cost_the_same):
        print(f"ok     {case.__name__.replace('_', ' ')}: {case(binary)}", flush=True)


if __name__ == "__main__":
    end_as_told(main)
