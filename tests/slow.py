#!/usr/bin/env python3
"""Peers by the thousand that are slow, or not there: what each costs, when it is cut, and whom it hurts.

    tests/slow.py target/release/pail [--require]

While they are there, each takes 32 KiB at most of the server's memory, and the 99th percentile of a good client's calls is
at most twice what it is beside nobody; each is cut in time, and then every descriptor is back. With --require it fails
where too few descriptors are allowed.
"""

import resource
import selectors
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benches" / "comparison"))

import messages as m
from beside import GoodClient, Memory
from wire import RST_STREAM, WINDOW_MAX, Connection
from world import Server, Wrong, descriptors, end_as_told, pail_to_test, require, rss_bytes, until

EACH_MAX, P99_MAX, TRIES, CALM_S = 32 << 10, 2, 3, 3
SERVICE = "/pail.v1.BucketService/"
SILENT, WATCHES, CONNECTIONS = 2_000, 1_000, 100
WATCHED, KEY, VALUE = "watched", "key", "x" * 1_000
# What the server's patience is, and for a machine that is busy with something else.
FIRST_WORD_S, KEEPALIVE_S, NOT_TAKEN_S, MARGIN_S = 10, 10 + 5, 35, 5
WATCH = m.framed(m.field(3, WATCHED) + m.field(4, True))


class Peer(Connection):
    """A connection that answers pings, and is otherwise as slow as it is told to be."""

    def __init__(self, address, window=None):
        super().__init__(address, window)
        self.resets, self.is_over = 0, False

    def watch(self, count):
        for _ in range(count):
            self.prepare(SERVICE + "Watch", WATCH)
        self.send()

    def read_what_is_there(self):
        try:
            self.read(None)
        except (OSError, Wrong):
            self.is_over = True

    def take(self, kind, flags, stream, payload):
        if kind == RST_STREAM:
            self.resets += 1
        else:
            super().take(kind, flags, stream, payload)


def read_until(peers, is_so, within_s):
    """How long it takes, while the peers are read from."""
    start = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            selector.register(peer.socket, selectors.EVENT_READ, peer)
        while not is_so():
            if time.monotonic() > start + within_s:
                raise Wrong(f"not within {within_s} s")
            for key, _ in selector.select(0.1):
                key.data.read_what_is_there()
                if key.data.is_over:
                    selector.unregister(key.fileobj)
    return time.monotonic() - start


# The peers. Each function makes them, and returns them with what waits for their end, and how long that may take.


def who_say_nothing(server):
    """Connections, and not a byte."""
    peers = [Peer(server.address) for _ in range(SILENT)]
    return peers, SILENT, lambda: read_until(peers, lambda: all(peer.is_over for peer in peers), FIRST_WORD_S + MARGIN_S)


def who_open_no_window(server):
    """Watches that may not be told anything. Their connections live on."""
    peers = [Peer(server.address, window=0) for _ in range(CONNECTIONS)]
    for peer in peers:
        peer.watch(WATCHES // CONNECTIONS)
    over = lambda: sum(peer.resets for peer in peers) == WATCHES
    return peers, WATCHES, lambda: read_until(peers, over, NOT_TAKEN_S + MARGIN_S)


def who_stop_reading(server):
    """Watches whose connections are never read from: that they are cut is seen at the server."""
    has = descriptors(server.pid)
    peers = [Peer(server.address, window=WINDOW_MAX) for _ in range(CONNECTIONS)]
    for peer in peers:
        peer.watch(WATCHES // CONNECTIONS)
    until(lambda: descriptors(server.pid) >= has + CONNECTIONS, "all are accepted")

    def are_cut():
        start = time.monotonic()
        until(lambda: descriptors(server.pid) <= has, "all are cut", KEEPALIVE_S + MARGIN_S)
        return time.monotonic() - start

    return peers, WATCHES, are_cut


def beside(make, server):
    """What they cost each, how much longer others' calls take, and when the last was cut."""
    with GoodClient(server.address, SERVICE + "Get", m.framed(m.get("good", KEY))) as good:
        time.sleep(CALM_S / 3)  # warm
        _, calm_p99_s, _ = good.during(lambda: time.sleep(CALM_S))
        has, base = descriptors(server.pid), rss_bytes(server.pid)
        with Memory(server.pid) as memory:
            peers, count, are_cut = make(server)
            # Each has its place by now, and each change is news to those who watch.
            _, p99_s, cut_s = good.during(lambda: are_cut_beside_changes(are_cut, server))
        for peer in peers:
            peer.socket.close()
        until(lambda: descriptors(server.pid) <= has, "every descriptor is back")
    return (memory.most - base) // count, p99_s / calm_p99_s, cut_s


def are_cut_beside_changes(are_cut, server):
    for number in range(10):
        server.do("put", WATCHED, KEY, f"{number}{VALUE}")
    return are_cut()


def ask(make, binary):
    for _ in range(TRIES):
        with Server(binary) as server:
            for bucket in ("good", WATCHED):
                server.do("create", bucket)
                server.do("put", bucket, KEY, VALUE)
            each, ratio, cut_s = beside(make, server)
        # On a machine that is not alone a slow call may be anybody's doing.
        if ratio <= P99_MAX:
            break
    words = f"{each:,} bytes each, others' p99 × {ratio:.2f}, the last was cut after {cut_s:.1f} s"
    require(each <= EACH_MAX and ratio <= P99_MAX, words)
    return words


def main():
    binary = pail_to_test(__doc__, {})
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    require(room > SILENT + 100, f"{room} descriptors are allowed: {SILENT} connections need more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (room, room))
    for make in (who_say_nothing, who_open_no_window, who_stop_reading):
        print(f"ok     {make.__name__.replace('_', ' ')}: {ask(make, binary)}", flush=True)


if __name__ == "__main__":
    end_as_told(main)
