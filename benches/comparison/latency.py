"""Latency in an open loop: requests go out when they are due, whether or not the ones before have been answered.

h2load can keep a pace, but counts from when a request was sent, and so leaves out what it had to wait for that: this
row is `pail bench`'s, for both contenders.
"""

import json

from load import output_of
from peers import NotMeasured
from race import P99, RATE, Lane
from unary import PAIL, STOCK, VALUE_BYTES, get, pail, stock_tonic
from world import DEADLINE_S, Wrong

CONNECTIONS, STREAMS = 8, 100


def at_half_of_saturation(stack, setting, enter):
    ours = pail(stack, setting)
    code, _ = ours.ask("bench", "--help")
    if code:
        raise NotMeasured("this pail has no `pail bench`, and no generator here but that counts from what was due")
    theirs = stock_tonic(stack)
    # Of the slower one, so that the same load is half of what each can do, or less.
    load = get(setting, CONNECTIONS, STREAMS)
    saturation = min(ran.requests / ran.seconds for ran in (load.run(each.address, 50_000) for each in (ours, theirs)))
    rate = int(saturation / 2)

    def contender(name, server):
        shape = ["--connections", CONNECTIONS, "--streams", STREAMS, "--value-size", VALUE_BYTES]
        pace = ["--rate", rate, "--duration", f"{int(setting.seconds * 1000)}ms"]
        command = [setting.pail, "bench", "--op", "get", *shape, *pace, "--output", "json"]

        def measure():
            told = json.loads(output_of([*command, "--addr", server.address], 3 * DEADLINE_S))
            if told["errors"] or told["saturated"]:
                late, errors = told["late_for_generator"] + told["unsent"], told["errors"]
                raise Wrong(f"{name}, {rate} a second: {errors} errors, {late} late by the generator or unsent")
            return {P99: told["latency_ns"]["p99"] / 1e6, RATE: told["ops_per_second"]}

        return Lane(name, measure, " ".join(["pail", *map(str, command[1:])]))

    enter(PAIL, lambda: contender(PAIL, ours))
    enter(STOCK, lambda: contender(STOCK, theirs))
