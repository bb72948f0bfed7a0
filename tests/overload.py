#!/usr/bin/env python3
"""More than the server can do: it goes on doing what it can, and refuses the rest at once.

    tests/overload.py target/release/pail [--seconds 6] [--times 2 5 10] [--queues 20 3]

One worker scans buckets, a thousand entries each time: as fast as it can, which is full, and at half of that, which is calm.
Then it is asked for 2, 5 and 10 times as much, by the clock, whatever it answers. It may not do much less than
it can (`Queue.least`; at 10 times to refuse takes a quarter of its time); of the calls that it does, 99 % may not take longer than three times as long as in calm, or than --queue-time-max and
a quarter of it, whichever is more; the rest are OVERLOADED, and nothing else. Somebody who asks for little meanwhile gets nine of ten calls done. Two seconds later nothing is refused, and 99 % take no longer than three times as long as in calm, or 5 ms.

All of it is asked with two queues: one of 20 ms, in which 32 may be at once and nobody is refused, and one of 3 ms, for who wants no
wait at all: there the 99 % are a few times as long as in calm.

A stock tonic server, whose scans take as long, is then asked for twice what it can do: it must fail, or the question asks
nothing.

At 10 times as much the load takes as much of a processor as the server does, and two processors may be one with two
threads, which then both are slower: so what is full is measured beside something as busy. Other processes disturb a run as
they disturb a server: so what is too slow is measured again, and what is full and calm with it, twice at most.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benches" / "comparison"))

from peers import StockTonic
from world import Running, Server, Wrong, end_as_told

TIMES = (2, 5, 10)
P99_MAX, AFTER_MS, LITTLE_MIN, TRIES = 3, 5, 0.9, 3


@dataclass(frozen=True)
class Queue:
    """What --queue-time-max is, and what goes with it. Connections and streams are pairs."""

    ms: int
    narrow: tuple  # as many as keep a worker busy, and wait for each other for less than would be overload
    held: tuple  # as many as may not be refused
    least: dict  # which part of what it can do it must do, asked for so many times as much


# Less than the default: who wants short queues says so.
QUEUES = {
    20: Queue(20, (8, 2), (8, 4), {2: 0.9, 5: 0.9, 10: 0.8}),
    3: Queue(3, (4, 1), (4, 1), {2: 0.9, 5: 0.8, 10: 0.7}),
}
# So many that none waits at the client.
WIDE = ("--connections", 8, "--streams", 2_048)
# Four buckets of a thousand entries: a page has just below 64 KiB, and is in no other limit's way.
ENTRIES = ("--keys", 4_000, "--buckets", 4, "--value-size", 28)


class Load(Running):
    """One run of `pail bench`, for as long as a `with` lasts."""

    def __init__(self, server, seconds, *options):
        words = [server.pail, "bench", "--threads", 1, "--duration", f"{seconds}s", "--output", "json", *options]
        super().__init__(words, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.within_s = seconds + 60

    def result(self):
        try:
            output, errors = self.process.communicate(timeout=self.within_s)
        except subprocess.TimeoutExpired:
            raise Wrong("a load did not end") from None
        # 1: some were refused.
        if self.process.returncode not in (0, 1):
            raise Wrong(f"a load ended with {self.process.returncode}: {errors}")
        report = json.loads(output)
        report["p99_ms"] = report["latency_ns"]["p99"] / 1e6
        return report


def scans(server, seconds, *options):
    return Load(server, seconds, "--op", "scan", *ENTRIES, *options)


def scanned(server, seconds, *options):
    with scans(server, seconds, *options) as load:
        return load.result()


def at_once(connections, streams):
    return ("--connections", connections, "--streams", streams)


def told(what, report, full):
    refused = report["errors"] / (report["operations"] + report["errors"])
    share = report["ops_per_second"] / full
    print(f"{what:>10}: {report['ops_per_second']:6,.0f}/s ({share:4.0%} of full), p99 {report['p99_ms']:5.1f} ms, {refused:4.0%} refused", flush=True)


def only_overloaded(what, report):
    if others := set(report["errors_by_reason"]) - {"OVERLOADED"}:
        raise Wrong(f"{what}: errors of other kinds: {sorted(others)}")


class Able:
    """What the server can do, and how long that takes in calm."""

    def __init__(self, server, queue, seconds):
        self.queue = queue
        # What a load of 10 times as much does to the other processor.
        with Running(["nice", sys.executable, "-c", "while True: pass"]):
            full = scanned(server, seconds, *at_once(*queue.narrow))
        self.full = full["ops_per_second"]
        told("full", full, self.full)
        calm = scanned(server, seconds, *WIDE, "--rate", int(self.full / 2))
        told("calm", calm, self.full)
        for report, what in ((full, "a few at once"), (calm, "half of what it can do")):
            if report["errors"]:
                raise Wrong(f"{what}: refused")
        self.calm_ms = calm["p99_ms"]
        self.p99_max_ms = max(P99_MAX * self.calm_ms, 1.25 * queue.ms)


def overloaded(server, times, able, seconds):
    """Asks for so many times as much; what is wrong, or nothing."""
    little = ("--op", "get", "--keys", 1, "--connections", 1, "--streams", 50, "--rate", 50)
    much = scans(server, seconds, *WIDE, "--rate", int(able.full * times))
    with much as load, Load(server, seconds, *little) as beside:
        report, beside = load.result(), beside.result()
    what = f"{times} times"
    told(what, report, able.full)
    for one in (report, beside):
        only_overloaded(what, one)
    little_done = beside["operations"] / (beside["operations"] + beside["errors"])
    print(f"{'':10}  who asks for little: {little_done:.0%} done, p99 {beside['p99_ms']:.1f} ms")
    wrong = []
    if report["ops_per_second"] < able.queue.least[times] * able.full:
        wrong.append(f"{what}: {report['ops_per_second']:.0f}/s of {able.full:.0f} are done")
    if report["p99_ms"] > able.p99_max_ms:
        wrong.append(f"{what}: p99 is {report['p99_ms']:.1f} ms, {able.p99_max_ms:.1f} are allowed")
    if not report["errors"]:
        wrong.append(f"{what}: nothing was refused")
    if little_done < LITTLE_MIN:
        wrong.append(f"{what}: of who asks for little, {little_done:.0%} are done")
    return wrong


class Asked:
    """A stock tonic server, as a load wants one."""

    def __init__(self, server, pail):
        self.pail, self.env = pail, os.environ | {"PAIL_ADDR": server.address}


def stock_tonic_fails(pail, able, seconds):
    """It takes what comes, so that who is served has waited for all the rest."""
    times = min(TIMES)
    with StockTonic(64, scan_us=int(1e6 / able.full), threads=1) as server:
        server = Asked(server, pail)
        full = scanned(server, seconds, *at_once(*able.queue.narrow))["ops_per_second"]
        report = scanned(server, seconds, *WIDE, "--rate", int(full * times))
    told(f"{times} times", report, full)
    if report["p99_ms"] <= able.p99_max_ms:
        raise Wrong("stock tonic does as well: the question asks nothing")


def calm_again(server, able):
    """What is not as it was in calm; or nothing."""
    time.sleep(1)  # and another passes as it warms up: two are allowed
    after = scanned(server, 2, *WIDE, "--rate", int(able.full / 2))
    told("after", after, able.full)
    wrong = ["after: calls are refused"] if after["errors"] else []
    if after["p99_ms"] > max(P99_MAX * able.calm_ms, AFTER_MS):
        wrong.append(f"after: p99 is {after['p99_ms']:.1f} ms")
    return wrong


def withstands(server, times, able, seconds):
    """Asks for so many times as much, until nothing is wrong, three times at most. Returns what it was able to last."""
    for left in reversed(range(TRIES)):
        wrong = overloaded(server, times, able, seconds) + calm_again(server, able)
        if not wrong:
            return able
        print("; ".join(wrong), flush=True)
        if left:
            able = Able(server, able.queue, seconds)
    raise Wrong("; ".join(wrong))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pail", type=lambda path: Path(path).resolve())
    parser.add_argument("--seconds", type=int, default=6, help="of each load")
    parser.add_argument("--times", type=int, nargs="+", choices=TIMES, default=TIMES, help="as much, of what it can do")
    parser.add_argument("--queues", type=int, nargs="+", choices=QUEUES, default=list(QUEUES), help="in milliseconds")
    args = parser.parse_args()
    for queue in (QUEUES[ms] for ms in args.queues):
        print(f"--queue-time-max {queue.ms}ms:")
        with Server(args.pail, "--workers", "1", "--queue-time-max", f"{queue.ms}ms") as server:
            if scanned(server, args.seconds, *at_once(*queue.held))["errors"]:
                raise Wrong(f"{math.prod(queue.held)} at once are refused")
            able = Able(server, queue, args.seconds)
            for times in args.times:
                able = withstands(server, times, able, args.seconds)
    print("a stock tonic server, whose scans take as long:")
    stock_tonic_fails(args.pail, able, args.seconds)
    print("it does what it can, and refuses the rest")


if __name__ == "__main__":
    end_as_told(main)
