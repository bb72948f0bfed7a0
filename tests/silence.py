#!/usr/bin/env python3
"""Clients that go without a word, and how soon their buckets go too.

    tests/silence.py target/release/pail [--require]

A client that is killed closes its connection: its bucket goes down at once. One that is frozen, or behind a network that
has fallen silent, closes nothing: the server's pings find it out, or its lease, where that is shorter. The silent network
is real, a namespace of its own whose end of the wire is taken down, and needs root.

With --require it fails where root, ip or grpcurl is missing.
"""

import itertools
import os
import signal
import subprocess
import time
from functools import partial

from world import Link, Listener, Server, Watch, Wrong
from world import descriptors, end_as_told, has, pail_to_test, require, run_beside_each_other, until

AT_ONCE_S = 1
# The server pings after so long, and waits so long for the answer.
KEEPALIVE_S = 10 + 5
LEASE_S = 2
# Either side notices within this that the other is gone.
BOTH_S = 30
# For a machine that is busy with something else.
MARGIN_S = 1
# For benchmarks of networks, says RFC 2544, and so no one's real address: two for each namespace.
ADDRESSES = "198.18.77"


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

    numbers = itertools.count()

    def __init__(self):
        number = next(self.numbers)
        self.name = f"pail-{os.getpid()}-{number}"
        # An interface has 15 letters at most.
        self.here, self.there = f"pl{os.getpid()}h{number}", f"pl{os.getpid()}t{number}"
        self.address, self.their_address = f"{ADDRESSES}.{4 * number + 1}", f"{ADDRESSES}.{4 * number + 2}"
        self.inside = ["ip", "netns", "exec", self.name]

    def __enter__(self):
        try:
            ip("netns", "add", self.name)
            ip("link", "add", self.here, "type", "veth", "peer", "name", self.there, "netns", self.name)
            ip("address", "add", f"{self.address}/30", "dev", self.here)
            ip("link", "set", self.here, "up")
            ip("-n", self.name, "address", "add", f"{self.their_address}/30", "dev", self.there)
            ip("-n", self.name, "link", "set", self.there, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def fall_silent(self):
        """From now on no packet passes, and nobody is told."""
        ip("-n", self.name, "link", "set", self.there, "down")

    def come_back(self):
        ip("-n", self.name, "link", "set", self.there, "up")

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
    with Namespace() as namespace, Server(pail, *room, listen=f"{namespace.address}:0") as server:
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


class Follower(Listener):
    """`pail watch --resume` of everything, inside a network."""

    def __init__(self, server, within):
        command = [server.pail, "watch", "--addr", server.address, "--prefix", "", "--resume", "--output", "json"]
        super().__init__([*within, *command], stdin=subprocess.DEVNULL)

    def created(self):
        with self.changed:
            return [message["created"]["bucket"] for _, message in self.messages if "created" in message]


def a_network_that_comes_back(pail):
    """Both sides notice that the other is gone, and a client that resumes is told of all that happened meanwhile, once."""
    names = [f"b{number}" for number in range(30)]
    with Namespace() as namespace, Server(pail, listen=f"{namespace.address}:0") as server:
        server.do("create", names[0])
        with Follower(server, namespace.inside) as follower:
            until(lambda: follower.created() == names[:1], "the first is told")
            before = descriptors(server.pid)
            begun = time.monotonic()
            namespace.fall_silent()
            for name in names[1:20]:
                server.do("create", name)
            until(lambda: descriptors(server.pid) == before - 1, "the server notices", BOTH_S)
            server_s = time.monotonic() - begun
            until(lambda: follower.errors, "the client notices", BOTH_S - server_s)
            client_s = time.monotonic() - begun
            for name in names[20:]:
                server.do("create", name)
            require(follower.created() == names[:1], "nothing passes a network that is silent")
            namespace.come_back()
            until(lambda: len(follower.created()) >= len(names), "all are told")
            require(follower.created() == names, f"in order, and once: {follower.created()}")
    return f"the server notices after {server_s:.1f} s, the client after {client_s:.1f} s; nothing is missed"


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
            ("a network that comes back", partial(a_network_that_comes_back, pail)),
        ]
        wrong = run_beside_each_other(cases)
    print(f"{len(cases)} ways to go without a word, and {wrong} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    end_as_told(main)
