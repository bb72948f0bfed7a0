#!/usr/bin/env python3
"""Clients that go without a word, and how soon their buckets go too.

    tests/silence.py target/release/pail [--require]

A client that is killed closes its connection: its bucket goes down at once. One that is frozen, or behind a network that
has fallen silent, closes nothing: the server's pings find it out, or its lease, where that is shorter. The silent network
is real, a namespace of its own whose end of the wire is taken down, and needs root.

With --require it fails where root, ip or grpcurl is missing.
"""

import os
import signal
import subprocess
import time
from functools import partial

from world import Link, Server, Watch, Wrong
from world import descriptors, end_as_told, has, pail_to_test, require, run_beside_each_other, until

AT_ONCE_S = 1
# The server pings after so long, and waits so long for the answer.
KEEPALIVE_S = 10 + 5
LEASE_S = 2
# For a machine that is busy with something else.
MARGIN_S = 1
# For benchmarks of networks, says RFC 2544, and so no one's real address.
HERE, THERE = "198.18.77.1", "198.18.77.2"


def follow(bucket):
    return {"buckets": [bucket], "follow": True}


def goes_down(server, bucket, how, least_s, most_s, lease=None):
    """A client on loopback gets this signal, and its bucket goes down in this time."""
    with Watch(server.address, follow(bucket)) as witness, Link(server.address, bucket, lease=lease) as link:
        begun = time.monotonic()
        link.signal(how)
        at, reason, detail = witness.down(bucket)
    took = at - begun
    require(reason == "REASON_NOCONNECTION" and least_s <= took <= most_s, f"{reason} ({detail}) after {took:.3f} s")
    return f"NOCONNECTION ({detail}) after {took:.3f} s"


class Namespace:
    """A network of its own, with one wire to ours."""

    def __init__(self):
        self.name = f"pail-{os.getpid()}"
        # An interface has 15 letters at most.
        self.here, self.there = f"pl{os.getpid()}h", f"pl{os.getpid()}t"
        self.inside = ["ip", "netns", "exec", self.name]

    def __enter__(self):
        try:
            ip("netns", "add", self.name)
            ip("link", "add", self.here, "type", "veth", "peer", "name", self.there, "netns", self.name)
            ip("address", "add", f"{HERE}/30", "dev", self.here)
            ip("link", "set", self.here, "up")
            ip("-n", self.name, "address", "add", f"{THERE}/30", "dev", self.there)
            ip("-n", self.name, "link", "set", self.there, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def fall_silent(self):
        """From now on no packet passes, and nobody is told."""
        ip("-n", self.name, "link", "set", self.there, "down")

    def __exit__(self, *_):
        # What is there of it: the wire goes with either of its ends.
        for words in (["link", "delete", self.here], ["netns", "delete", self.name]):
            subprocess.run(["ip", *words], stderr=subprocess.DEVNULL, check=False)


def ip(*words):
    done = subprocess.run(["ip", *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise Wrong(f"ip {' '.join(words)}: {done.stdout}")


def is_full(server):
    """No stream more can be had. If one could, it would prove nothing that there is room later."""
    try:
        with Watch(server.address, follow("b")):
            pass
    except Wrong as words:
        require("TOO_MANY_STREAMS" in str(words), str(words))
    else:
        raise Wrong("there is room for a fourth stream")


def a_silent_network(pail):
    """A Link and a Watch behind it end within the keepalive, and what the server held for them is back."""
    # Room for the witness and the two.
    room = ["--long-streams-total-max", "3"]
    with Namespace() as namespace, Server(pail, *room, listen=f"{HERE}:0") as server:
        with Watch(server.address, follow("b")) as witness:
            before = descriptors(server.pid)
            with (
                Link(server.address, "b", within=namespace.inside),
                Watch(server.address, follow("other"), within=namespace.inside),
            ):
                require(descriptors(server.pid) == before + 2, "each has a connection")
                is_full(server)
                until(lambda: descriptors(server.pid) == before + 2, "the refused one's connection is over")

                begun = time.monotonic()
                namespace.fall_silent()
                at, reason, detail = witness.down("b")
                took = at - begun
                require(reason == "REASON_NOCONNECTION", f"{reason} {detail}")
                require(KEEPALIVE_S - 10 - MARGIN_S < took < KEEPALIVE_S + MARGIN_S, f"after {took:.3f} s")
                until(lambda: descriptors(server.pid) == before, "both descriptors are back", KEEPALIVE_S)
                returned = time.monotonic() - begun
                with Watch(server.address, follow("b")), Watch(server.address, follow("b")):
                    pass
    return f"NOCONNECTION ({detail}) after {took:.1f} s, descriptors and streams are back after {returned:.1f} s"


def main():
    pail = pail_to_test(__doc__, {"root": os.geteuid() == 0} | has("ip", "grpcurl"))
    with Server(pail) as server:
        kill, freeze, most_s = signal.SIGKILL, signal.SIGSTOP, KEEPALIVE_S + MARGIN_S
        leased = partial(goes_down, server, "leased", freeze, LEASE_S - MARGIN_S, LEASE_S + MARGIN_S, lease=f"{LEASE_S}s")
        cases = [
            ("a killed client", partial(goes_down, server, "killed", kill, 0, AT_ONCE_S)),
            ("a frozen client", partial(goes_down, server, "frozen", freeze, 1, most_s)),
            (f"a frozen client with a lease of {LEASE_S} s", leased),
            ("a silent network", partial(a_silent_network, pail)),
        ]
        wrong = run_beside_each_other(cases)
    print(f"{len(cases)} ways to go without a word, and {wrong} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    end_as_told(main)
