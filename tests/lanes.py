#!/usr/bin/env python3
"""Connections that a server has to look after, in two lanes: pail has to, and a stock tonic server has to fail.

    tests/lanes.py target/release/pail [--require]

Each case is a question that is asked of both servers, all at once, in some forty seconds. Where stock tonic learns to do
a thing, its lane says so: then the case has no control any more, and that is to be said here.

With --require it fails where cargo, go or the Go client's programs (clients/go/build) are missing.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benches" / "comparison"))

import messages as m
from gauge import cpu_s
from peers import StockTonic
from wire import DATA, PREFACE, PRIORITY, SETTINGS, Connection, Connections, frame
from world import DEADLINE_S, Server, Wrong, descriptors, end_as_told, has, pail_to_test, require, rss_bytes
from world import run_beside_each_other, until

CROWD = ROOT / "clients" / "go" / ".build" / "bin" / "crowd"
SERVICE = "/pail.v1.BucketService/"
LIST = m.framed(b"")
# For a machine that is busy with something else.
MARGIN_S = 3

# An entry, and answers that no buffer of the kernel's takes in.
VALUE_BYTES, UNREAD_BYTES = 100_000, 40 << 20
FIRST_WORD_S, IDLE_S, KEEPALIVE_S, AGE_S, NOT_READING_S, DRAIN_S = 10, 2, 10 + 5, 1, 30, 2
CROWD_SIZE, CONNECTIONS = 2_000, 10_000
SMALL_FRAMES, SMALL_FRAMES_AT_ONCE, TALKERS = 100_000, 2_000, 16  # together less than the least window
# Most of it are HTTP/2's buffers, which are resident whole because pail's memory is in huge pages.
CONNECTION_BYTES_MAX = 48 << 10


class Pail(Server):
    """pail with one large entry."""

    def __init__(self, binary, *options):
        super().__init__(binary, *options)
        self.do("create", "lanes")
        self.do("put", "lanes", "key", "x" * VALUE_BYTES)


def connected(server, within_s=DEADLINE_S):
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), within_s)


def is_closed(client, within_s):
    """Whether the server ends the connection. What it says before is of no interest."""
    end = time.monotonic() + within_s
    while (left := end - time.monotonic()) > 0:
        client.settimeout(left)
        try:
            if not client.recv(1 << 16):
                return True
        except TimeoutError:
            return False
        except ConnectionError:
            return True
    return False


def inode(client):
    """What the server's end of a connection is, which its descriptor of it names; 0 where it has none."""
    ends = [f":{port:04X}" for port in (client.getpeername()[1], client.getsockname()[1])]
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines():
        _, local, remote, *_, number = line.split()[:10]
        if [local[-5:], remote[-5:]] == ends:
            return int(number)
    return 0


def has_descriptor(pid, number):
    """Whether a process has this very connection. How many it has says little: others come and go."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(descriptor) == f"socket:[{number}]":
                return True
        except FileNotFoundError:
            pass  # it was closed since
    return False


# The questions: whether the server does it, and what was seen.


def rests_without_descriptors(server):
    """Out of file descriptors it does not spin, and it accepts again within 2 s of a free one."""
    limit = 40
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limit))
    clients = [connected(server) for _ in range(2 * limit)]
    until(lambda: descriptors(server.pid) >= limit - 1, "no descriptor is left")
    before, start = cpu_s(server.pid), time.monotonic()
    time.sleep(1)  # the time that is measured
    busy = (cpu_s(server.pid) - before) / (time.monotonic() - start)
    for client in clients:
        client.close()
    start = time.monotonic()
    with Connections(server.address, 1) as one:
        one.ask(SERVICE + "List", [LIST])
    took = time.monotonic() - start
    return busy < 0.25 and took < 2, f"{busy:.0%} of a core, accepts again after {took:.2f} s"


def has_room_for_a_crowd(server):
    """Clients that come while the server is busy with something else are heard, and not told to come again in a second."""
    server.signal(signal.SIGSTOP)
    clients = []
    try:
        while len(clients) < CROWD_SIZE:
            clients.append(connected(server, within_s=0.8))
    except TimeoutError:
        pass
    finally:
        server.signal(signal.SIGCONT)
    for client in clients:
        client.close()
    return len(clients) == CROWD_SIZE, f"{len(clients):,} of {CROWD_SIZE:,}"


def lets_go_of_who_says_nothing(server):
    """A client that says nothing, or half of its greeting, is let go in time."""
    clients = [connected(server) for _ in range(2)]
    clients[1].sendall(PREFACE[:10])
    start = time.monotonic()
    closed = [is_closed(client, start + FIRST_WORD_S + MARGIN_S - time.monotonic()) for client in clients]
    return all(closed), f"closed {closed} within {time.monotonic() - start:.1f} s"


def closes_what_is_idle(server):
    """A connection that no call was on for long is closed."""
    client = connected(server)
    client.sendall(PREFACE + frame(SETTINGS, 0, 0))
    closed = is_closed(client, IDLE_S + MARGIN_S)
    return closed, f"closed: {closed}"


def pings_who_is_silent(server):
    """A peer that answers no ping is gone, whatever its kernel says."""
    client = connected(server)
    client.sendall(PREFACE + frame(SETTINGS, 0, 0))
    start = time.monotonic()
    closed = is_closed(client, KEEPALIVE_S + MARGIN_S)
    return closed, f"closed: {closed}, after {time.monotonic() - start:.1f} s"


def has_its_clients_move(server):
    """A connection ends at its age, also where a watch is open on it."""
    client = Connection(server.address)
    client.prepare(SERVICE + "Watch", m.framed(m.watch_bucket("lanes")))
    client.send()
    closed = is_closed(client.socket, AGE_S * 1.1 + MARGIN_S)
    return closed, f"closed: {closed}"


def cuts_who_does_not_read(server):
    """A peer that asks for much and goes on talking, but reads nothing, is cut, and its descriptor comes back."""
    client = Connection(server.address)
    for _ in range(UNREAD_BYTES // VALUE_BYTES):
        client.prepare(SERVICE + "Get", m.framed(m.get("lanes", "key")))
    client.send()
    until(lambda: has_descriptor(server.pid, inode(client.socket)), "the connection is accepted")
    connection = inode(client.socket)
    start = time.monotonic()
    # From the last byte that the kernel had room for, which may be some seconds after.
    while (took := time.monotonic() - start) < NOT_READING_S + 15 and has_descriptor(server.pid, connection):
        time.sleep(0.2)
        try:
            # Says that it is there, and is not answered: what a ping would be.
            client.socket.send(frame(PRIORITY, 0, 1, bytes(5)), socket.MSG_DONTWAIT)
        except OSError:
            pass  # it is cut, or the server reads no more either
    came_back = not has_descriptor(server.pid, connection)
    return came_back, f"descriptor back: {came_back}, after {took:.1f} s"


def ends_in_time(server):
    """A call that is never whole does not keep the server from ending."""
    client = connected(server)
    call = Connection(server.address)
    call.prepare(SERVICE + "List", LIST[:3], half_close=False)
    call.send()
    with Connections(server.address, 1) as other:
        other.ask(SERVICE + "List", [LIST])
    server.signal(signal.SIGINT)
    start = time.monotonic()
    try:
        server.process.wait(DRAIN_S + MARGIN_S)
        ended = True
    except subprocess.TimeoutExpired:
        ended = False
    client.close()
    call.socket.close()
    return ended, f"ended: {ended}, after {time.monotonic() - start:.1f} s"


def bounds_a_client_and_answers_it(server):
    """A Go client opens watches until it may open no more, and then it still gets its Get answered."""
    done = subprocess.run([CROWD, server.address], text=True, stdout=subprocess.PIPE, timeout=60, check=False)
    return done.returncode == 0, ", ".join(done.stdout.splitlines())


# The lanes.


def in_both_lanes(question, options, binary):
    seen = []
    lanes = [("pail", partial(Pail, binary, *options), True), ("stock tonic", partial(StockTonic, VALUE_BYTES), False)]
    for lane, start, expected in lanes:
        with start() as server:
            does, what = question(server)
        seen.append(f"{lane}: {what}")
        require(does == expected, f"{lane} {'does not' if expected else 'does too'}: {what}")
    return "; ".join(seen)


def holds_many_connections(binary):
    """Stock tonic holds as many, and has no bound: what is shown is what they cost."""
    each = {}
    for lane, start in [("pail", partial(Server, binary)), ("stock tonic", partial(StockTonic, VALUE_BYTES))]:
        with start() as server:
            with Connections(server.address, 1) as one:
                one.ask(SERVICE + "List", [LIST])
            before = rss_bytes(server.pid)
            with Connections(server.address, CONNECTIONS) as all_of_them:
                all_of_them.ask(SERVICE + "List", [LIST] * CONNECTIONS)
                each[lane] = (rss_bytes(server.pid) - before) // CONNECTIONS
    words = ", ".join(f"{lane}: {size:,} bytes each" for lane, size in each.items())
    require(each["pail"] <= CONNECTION_BYTES_MAX, words)
    return words


class Talker(Connection):
    """Counts answers by a marker, which may begin in one frame and end in the next."""

    def __init__(self, address, marker):
        super().__init__(address)
        self.marker, self.answers, self.end = marker, 0, b""

    def take(self, kind, flags, stream, payload):
        super().take(kind, flags, stream, payload)
        if kind == DATA:
            seen = self.end + payload
            self.answers += seen.count(self.marker)
            self.end = seen[1 - len(self.marker) :]

    def talk(self, message):
        """Sends the message in a frame of its own again and again, and hears the answers. A GOAWAY is an error here."""
        self.socket.settimeout(DEADLINE_S)
        self.prepare(SERVICE + "Pipeline", b"", half_close=False)
        self.send()
        for sent in range(0, SMALL_FRAMES, SMALL_FRAMES_AT_ONCE):
            self.socket.sendall(frame(DATA, 0, 1, message) * SMALL_FRAMES_AT_ONCE)
            while self.answers < sent + SMALL_FRAMES_AT_ONCE:
                self.read(None)
        return self.answers


def takes_small_frames(binary):
    """Small frames by the hundred thousand are work, and no attack: no connection is told to go away."""
    bucket, key, value = "bbb", "kk", "milk of the lanes"
    message = m.pipeline(m.GET, [m.get(bucket, key)], 1)
    require(len(message) == 20, f"a frame of {len(message)} bytes")
    with Server(binary) as server:
        server.do("create", bucket)
        server.do("put", bucket, key, value)
        start = time.monotonic()
        with ThreadPoolExecutor(TALKERS) as pool:
            talkers = [Talker(server.address, value.encode()) for _ in range(TALKERS)]
            answers = sum(pool.map(lambda talker: talker.talk(message), talkers))
        took = time.monotonic() - start
    require(answers == TALKERS * SMALL_FRAMES, f"{answers:,} answers")
    return f"{TALKERS} connections, {SMALL_FRAMES:,} frames each, in {took:.1f} s"


QUESTIONS = {
    rests_without_descriptors: (),
    has_room_for_a_crowd: (),
    lets_go_of_who_says_nothing: (),
    closes_what_is_idle: ("--connection-idle-max", f"{IDLE_S}s"),
    pings_who_is_silent: (),
    has_its_clients_move: ("--connection-age-max", f"{AGE_S}s"),
    cuts_who_does_not_read: (),
    ends_in_time: ("--drain-timeout", f"{DRAIN_S}s"),
    bounds_a_client_and_answers_it: (),
}


def main():
    binary = pail_to_test(__doc__, has("cargo", "go") | {"clients/go/.build/bin/crowd": CROWD.is_file()})
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    require(room > CONNECTIONS + 100, f"{room} descriptors are allowed: {CONNECTIONS} connections need more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (room, room))
    with StockTonic(64):
        pass  # built before anything is timed
    cases = [
        (question.__name__.replace("_", " "), partial(in_both_lanes, question, options, binary))
        for question, options in QUESTIONS.items()
    ]
    wrong = run_beside_each_other(cases)
    # By itself: who is busy does not answer ten thousand pings.
    for case in (holds_many_connections, takes_small_frames):
        wrong += run_beside_each_other([(case.__name__.replace("_", " "), partial(case, binary))])
    if wrong:
        raise Wrong(f"{wrong} cases went wrong")


if __name__ == "__main__":
    end_as_told(main)
