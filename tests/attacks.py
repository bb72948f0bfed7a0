#!/usr/bin/env python3
"""Attacks by single frames, each while a good client works: what it costs the server, and whom else it hurts.

    tests/attacks.py target/release/pail [--seconds 30] [--only WORDS] [--control]

Each attack lasts so long, at least as long as a slow one may take, and begins anew whenever it is cut off. Meanwhile
the server may take 64 MiB more than when it was calm, the good client must keep half of its calm rate, whoever
attacks is cut within 10 s, or answered, nothing panics, and the log stays short. --control does the same to a stock
tonic server, which is to be compared and may do as it likes. It needs hyperframe and hpack, from pip.

It ends with 1 where an attack does harm, and with 2 where it can't say.
"""

import argparse
import os
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benches" / "comparison"))

import messages as m
from beside import FORK, Beside, GoodClient, Memory
from hpack import Decoder, Encoder
from hyperframe import frame as f
from peers import StockTonic
from wire import PREFACE
from world import DEADLINE_S, Server, Wrong, end_as_told, rss_bytes

MIB = 1 << 20
MEMORY_MAX, RATE_LEAST, CUT_S, LOG_LINES_MAX = 64 * MIB, 0.5, 10, 20
# For a machine that is busy with something else.
MARGIN_S = 2
# One that waits for the server's patience to end.
SLOW_S = CUT_S + 2 * MARGIN_S
CALM_S, RATE_TRIES = 2, 3
BUCKET, KEY, VALUE_BYTES = "attacked", "key", 1_000_000
SERVICE = "/pail.v1.BucketService/"
GET = m.framed(m.get(BUCKET, "small"))
GET_LARGE = m.framed(m.get(BUCKET, KEY))
# A Put of the small one, and a Get of the large.
TRANSACT_LARGE = m.framed(
    m.field(1, BUCKET) + m.transact_puts([("small", "value")]) + m.field(4, m.field(4, m.field(1, KEY)))
)
AT_ONCE = 100
FOUR_MIB = 4 * MIB

WINDOW, LARGE = f.SettingsFrame.INITIAL_WINDOW_SIZE, 65_535

CONNECTION, STREAMS = "the connection", "each stream"


class CanNotSay(Exception):
    """It is not known what the attack does."""


class Client:
    """One connection of an attacker's. What it may not send, nobody stops it from."""

    def __init__(self, address, settings):
        host, port = address.split(":")
        self.address = address
        self.socket = socket.create_connection((host, int(port)), DEADLINE_S)
        self.begun = time.monotonic()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.next_stream, self.rest, self.unsent = 1, b"", b""
        self.opened, self.ended = {}, {}  # when, and when and how, by stream
        self.is_over = False
        self.sent = 0
        self.greeting = PREFACE + f.SettingsFrame(0, settings).serialize()

    def open(self, method="Get", extra=(), flags=("END_HEADERS",), headers=None):
        """The headers of one more call; its number is in `self.stream`."""
        self.stream = self.next_stream
        self.next_stream += 2
        self.opened[self.stream] = time.monotonic()
        pairs = [(":method", "POST"), (":scheme", "http"), (":path", SERVICE + method), (":authority", self.address)]
        pairs += [("content-type", "application/grpc"), ("te", "trailers"), *extra]
        block = self.encoder.encode(pairs) if headers is None else headers
        return f.HeadersFrame(self.stream, block, flags=flags).serialize()

    def call(self, body=GET, method="Get", extra=()):
        return self.open(method, extra) + f.DataFrame(self.stream, body, flags=["END_STREAM"]).serialize()

    def send(self, octets):
        """As much of it as the server takes; the rest goes first the next time."""
        self.unsent += octets
        self.socket.setblocking(False)
        try:
            taken = self.socket.send(self.unsent)
            self.sent += taken
            self.unsent = self.unsent[taken:]
        except BlockingIOError:
            pass
        except OSError:
            self.is_over = True

    def read(self):
        """All that is there."""
        self.socket.setblocking(False)
        try:
            while octets := self.socket.recv(1 << 18):
                self.take(octets)
            self.is_over = True
        except BlockingIOError:
            pass
        except OSError:
            self.is_over = True

    def take(self, octets):
        octets = self.rest + octets
        at = 0
        while at + 9 <= len(octets):
            head, length = f.Frame.parse_frame_header(memoryview(octets[at : at + 9]))
            if at + 9 + length > len(octets):
                break
            head.parse_body(memoryview(octets[at + 9 : at + 9 + length]))
            at += 9 + length
            if isinstance(head, f.GoAwayFrame) and head.error_code:
                self.is_over = True
            elif isinstance(head, f.RstStreamFrame):
                self.ended.setdefault(head.stream_id, (time.monotonic(), "reset"))
            elif isinstance(head, f.HeadersFrame):
                answer = dict(self.decoder.decode(head.data))
                if "END_STREAM" in head.flags:
                    status = answer.get("grpc-status", answer.get(":status"))
                    self.ended.setdefault(head.stream_id, (time.monotonic(), status))
            elif isinstance(head, f.PingFrame) and "ACK" not in head.flags:
                # It is there: what is asked is what it does besides.
                self.send(f.PingFrame(0, head.opaque_data, flags=["ACK"]).serialize())
        self.rest = octets[at:]

    def waits(self):
        """How long each of its streams took, or has taken by now."""
        now = time.monotonic()
        return [self.ended.get(stream, (now,))[0] - at for stream, at in self.opened.items()]


# What is sent first, and then again and again.


def nothing(_client):
    return b""


def a_call(client):
    return client.open()


def flood(make, count=AT_ONCE):
    """The same frame, many times."""
    octets = make.serialize() * count
    return lambda _client: octets


def on_a_call(make, count=AT_ONCE):
    """The same frame many times, on the stream of the first call."""
    return lambda _client: make(1).serialize() * count


def resets(client):
    """Begun and reset, before anybody could look at it."""
    return b"".join(client.open() + f.RstStreamFrame(client.stream, 8).serialize() for _ in range(AT_ONCE))


def resets_of_the_last(client):
    """Resets what was begun the last time, which is at work by now, and begins anew."""
    last = [stream for stream in client.opened if stream not in client.ended][-AT_ONCE:]
    reset = b"".join(f.RstStreamFrame(stream, 8).serialize() for stream in last)
    return reset + b"".join(client.open() for _ in range(AT_ONCE))


def makes_the_server_reset(client):
    """A window that grows by nothing is an error of the stream's, which the server has to reset."""
    return b"".join(client.open() + no_growth(client.stream) for _ in range(AT_ONCE))


def no_growth(stream):
    return bytes([0, 0, 4, 8, 0]) + stream.to_bytes(4, "big") + bytes(4)


def continuations(client):
    return b"".join(f.ContinuationFrame(1, b"").serialize() for _ in range(AT_ONCE))


def bomb(client):
    """One large header in the table, and then a byte for each time that it is to be unpacked."""
    client.encoder.header_table_size = 4_096
    first = client.encoder.encode([("x-bomb", "x" * 3_900)])
    blocks = [first + b"\xbe" * 8_000] + [b"\xbe" * 8_000] * 9
    return b"".join(client.open(headers=block, flags=("END_HEADERS", "END_STREAM")) for block in blocks)


def calls(count=AT_ONCE, **words):
    return lambda client: b"".join(client.call(**words) for _ in range(count))


def one_byte_more(client):
    """Of a request that is announced to be large."""
    return f.DataFrame(1, b"x").serialize()


def one_byte_of_headers(client):
    return f.ContinuationFrame(1, b"\x00").serialize()


def announced(client):
    return b"".join(
        client.open("Put") + f.DataFrame(client.stream, b"\0" + FOUR_MIB.to_bytes(4, "big")).serialize()
        for _ in range(AT_ONCE)
    )


def a_large_put(client):
    return client.open("Put") + f.DataFrame(client.stream, b"\0" + FOUR_MIB.to_bytes(4, "big")).serialize()


def messages(_client):
    return f.DataFrame(1, m.framed(b"") * 100).serialize() * 10


def asks_and_does_not_read(client):
    """More answers than there is room for."""
    asked = m.pipeline(m.GET, [m.get(BUCKET, KEY)] * 10, 1)
    return client.open("Pipeline") + f.DataFrame(client.stream, asked).serialize()


def first_half(_client):
    return f.DataFrame(1, bytes(100)).serialize()[:20]


@dataclass(frozen=True)
class Attack:
    name: str
    # What must end in time; or the status that each call is answered with.
    ends: str
    begin: Callable = nothing
    more: Callable = nothing
    pause_s: float = 0
    connections: int = 1
    settings: tuple = ()
    is_slow: bool = False

    def asks_for_much(self):
        """Of a server all of whose answers are of one size: the good client's, too."""
        return dict(self.settings).get(WINDOW, LARGE) < LARGE


NOT_UTF_8 = m.framed(m.field(1, b"\xff\xfe") + m.field(3, b"\xc3\x28"))
ATTACKS = (
    Attack("rapid reset, before anything is accepted", CONNECTION, more=resets),
    Attack("rapid reset of what was accepted", CONNECTION, more=resets_of_the_last, pause_s=0.005),
    Attack("streams that the server has to reset", CONNECTION, more=makes_the_server_reset),
    Attack(
        "CONTINUATION without end",
        CONNECTION,
        begin=lambda client: client.open(flags=()),
        more=continuations,
    ),
    Attack("SETTINGS", CONNECTION, more=flood(f.SettingsFrame(0, {4: 65_535}))),
    Attack("PING", CONNECTION, more=flood(f.PingFrame(0, b"attacked"))),
    Attack("WINDOW_UPDATE", CONNECTION, more=flood(f.WindowUpdateFrame(0, window_increment=1))),
    Attack("PRIORITY", CONNECTION, more=flood(f.PriorityFrame(1, stream_weight=1))),
    Attack("DATA with nothing in it", CONNECTION, begin=a_call, more=on_a_call(f.DataFrame)),
    Attack(
        "DATA by the byte, to a stream that waits for its client",
        CONNECTION,
        begin=asks_and_does_not_read,
        more=on_a_call(lambda stream: f.DataFrame(stream, b"\0")),
        settings=((WINDOW, 0),),
    ),
    Attack("HPACK bombs", CONNECTION, more=bomb),
    Attack("windows that stay closed", STREAMS, begin=calls(body=GET_LARGE), settings=((WINDOW, 0),), is_slow=True),
    Attack("windows of one byte", STREAMS, begin=calls(body=GET_LARGE), settings=((WINDOW, 1),), is_slow=True),
    Attack(
        "closed windows for what has changed something",
        STREAMS,
        begin=calls(body=TRANSACT_LARGE, method="Transact"),
        settings=((WINDOW, 0),),
        is_slow=True,
    ),
    Attack(
        "a byte of the headers a second",
        CONNECTION,
        begin=lambda client: client.open(flags=()),
        more=one_byte_of_headers,
        pause_s=1,
        connections=50,
        is_slow=True,
    ),
    Attack(
        "a byte of the body a second",
        STREAMS,
        begin=a_large_put,
        more=one_byte_more,
        pause_s=1,
        connections=50,
        is_slow=True,
    ),
    Attack("half a frame", CONNECTION, begin=lambda client: client.open() + first_half(client), is_slow=True),
    Attack("4 MiB announced and never sent", STREAMS, begin=announced, connections=5, is_slow=True),
    Attack("one call with message after message", CONNECTION, begin=a_call, more=messages),
    Attack("a timeout that is none", "3", more=calls(extra=[("grpc-timeout", "soon")]), pause_s=0.05),
    Attack("8 KiB of metadata", "0", more=calls(10, extra=[("x-large", "x" * 8_000)]), pause_s=0.05),
    Attack("text that is not UTF-8", "3", more=calls(body=NOT_UTF_8), pause_s=0.05),
    Attack("an unknown compression", "12", more=calls(extra=[("grpc-encoding", "zip-of-death")]), pause_s=0.05),
)


def attack(attack_, address, seconds, result):
    """Attacks for so long. Tells how long what had to end took, at most, and what is wrong with how."""
    # The machine is not the attacker's: who is in its way has it first.
    os.nice(19)
    took, wrong, cuts, sent = 0.0, set(), 0, 0
    end = time.monotonic() + seconds
    clients = []
    while (now := time.monotonic()) < end:
        while len(clients) < attack_.connections:
            clients.append(client := Client(address, dict(attack_.settings)))
            client.send(client.greeting + attack_.begin(client))
        for client in clients[:]:
            # One that waits to send does not make up more.
            client.send(attack_.more(client) if len(client.unsent) < MIB else b"")
            client.read()
            is_done = client.is_over or (attack_.ends == STREAMS and len(client.ended) == len(client.opened))
            if attack_.ends == CONNECTION:
                took = max(took, now - client.begun)
                cuts += client.is_over
            else:
                took = max([took, *client.waits()])
                cuts += len(client.ended)
                wrong |= {how for _, how in client.ended.values()} - {attack_.ends} if attack_.ends != STREAMS else set()
                for stream in client.ended:
                    client.opened.pop(stream, None)
                client.ended.clear()
            if is_done:
                if attack_.ends != CONNECTION and client.is_over:
                    wrong.add("the connection was cut")
                sent += client.sent
                client.socket.close()
                clients.remove(client)
        time.sleep(attack_.pause_s or (0.01 if attack_.is_slow else 0))
    result.send((took, cuts, sorted(map(str, wrong)), sent + sum(client.sent for client in clients)))


@dataclass
class Seen:
    """What an attack did."""

    memory: int
    rate: float
    took_s: float
    cuts: int
    log: list

    def harm(self, attack_):
        yield from [f"{self.memory / MIB:.0f} MiB more"] * (self.memory > MEMORY_MAX)
        yield from ["the good client was held up"] * (self.rate < RATE_LEAST)
        yield from [f"{attack_.ends} took too long"] * (self.took_s > CUT_S + MARGIN_S)
        yield from [f"{len(self.log)} lines of log"] * (len(self.log) > LOG_LINES_MAX)
        yield from ["a panic"] * any("panic" in line for line in self.log)

    def __str__(self):
        return (
            f"{self.memory / MIB:.1f} MiB more, the good client at {self.rate:.2f} of calm, "
            f"{self.cuts:,} ended, at most {self.took_s:.1f} s, {len(self.log)} lines of log"
        )


def under(attack_, server, seconds):
    """Attacks a server that somebody works with."""
    log_before = len(getattr(server, "log", ()))
    with GoodClient(server.address, SERVICE + "Get", GET) as good:
        time.sleep(CALM_S / 4)  # warm
        calm, _, _ = good.during(lambda: time.sleep(CALM_S))
        base = rss_bytes(server.pid)
        here, there = FORK.Pipe(duplex=False)
        seconds = max(seconds, SLOW_S) if attack_.is_slow else seconds
        with Memory(server.pid) as memory, Beside(attack, attack_, server.address, seconds, there):
            attacked, _, _ = good.during(lambda: time.sleep(seconds))
            if not here.poll(DEADLINE_S):
                raise CanNotSay("the attacker does not end")
            took_s, cuts, wrong, sent = here.recv()
    if not sent or calm < 100:
        raise CanNotSay(f"nothing happened: {sent} bytes, {calm:.0f} calls a second")
    seen = Seen(memory.most - base, attacked / calm, took_s, cuts, list(getattr(server, "log", ()))[log_before:])
    return seen, wrong


class Pail(Server):
    def __init__(self, binary):
        super().__init__(binary)
        self.do("create", BUCKET)
        self.do("put", BUCKET, "small", "value")
        with tempfile.NamedTemporaryFile("w", prefix="value-") as file:
            file.write("x" * VALUE_BYTES)
            file.flush()
            self.do("put", BUCKET, KEY, "--file", file.name)


def against_pail(attack_, binary, seconds):
    """The harm that is done, if any, and what was seen. On a machine that is not alone a rate may be anybody's doing: one
    that is too low is measured again."""
    for _ in range(RATE_TRIES):
        with Pail(binary) as server:
            seen, wrong = under(attack_, server, seconds)
        harm = [*seen.harm(attack_), *wrong]
        if seen.rate >= RATE_LEAST:
            break
    return harm, seen


def against_stock_tonic(attack_, seconds):
    with StockTonic(VALUE_BYTES if attack_.asks_for_much() else 64) as server:
        seen, _ = under(attack_, server, seconds)
    return list(seen.harm(attack_)), seen


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("pail", type=Path, help="the binary, such as target/release/pail")
    arguments.add_argument("--seconds", type=float, default=30, help="for each attack")
    arguments.add_argument("--only", default="", help="those whose names hold these words")
    arguments.add_argument("--control", action="store_true", help="attack a stock tonic server, too")
    options = arguments.parse_args()
    chosen = [attack_ for attack_ in ATTACKS if options.only in attack_.name]
    if not chosen or not options.pail.is_file():
        print(f"no such attack or binary: there is {[attack_.name for attack_ in ATTACKS]}", file=sys.stderr)
        sys.exit(2)
    wrong = withstood = 0
    for attack_ in chosen:
        harm, seen = against_pail(attack_, options.pail.resolve(), options.seconds)
        wrong += bool(harm)
        print(f"{'WRONG' if harm else 'ok':5}  {attack_.name}: {seen}{'; ' * bool(harm)}{', '.join(harm)}", flush=True)
        if options.control:
            harm, seen = against_stock_tonic(attack_, options.seconds)
            withstood += not harm
            print(f"       stock tonic: {seen}{'; ' * bool(harm)}{', '.join(harm)}", flush=True)
    if options.control:
        print(f"stock tonic withstands {withstood} of {len(chosen)}")
    if wrong:
        raise Wrong(f"{wrong} of {len(chosen)} attacks do harm")


if __name__ == "__main__":
    try:
        end_as_told(main)
    except (CanNotSay, OSError, EOFError) as error:
        print(f"can't say: {error!r}", file=sys.stderr)
        sys.exit(2)
