"""Many gRPC streams over a few connections, by hand: opened, kept open, and listened to.

A client library costs as much as the servers that are measured. This one sends bytes that are ready, and of what comes
back it looks at the frames' heads, and for a marker: some text that each answer it waits for has once.
"""

import selectors
import socket
import time

from world import DEADLINE_S, Wrong

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 2, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
WINDOW_MAX = (1 << 31) - 1


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(authority, path):
    """Literals without a place in the table, so that a stream's bytes do not depend on those before it."""
    pairs = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    words = (word.encode() for pair in pairs.items() for word in pair)
    return b"".join((b"" if n % 2 else b"\0") + bytes([len(word)]) + word for n, word in enumerate(words))


class Connection:
    """One that takes so many bytes of each stream before they are read: as if there was no flow control, since what is measured
    is the server, and this side always reads. Without a window it says nothing."""

    def __init__(self, address, window=WINDOW_MAX):
        host, port = address.split(":")
        self.address = address
        self.socket = socket.create_connection((host, int(port)), DEADLINE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.next_stream = 1
        self.heads, self.unsent = {}, bytearray()
        self.answered, self.ended = set(), set()  # streams that have had DATA, and an end
        self.markers = 0
        self.room = 0xFFFF  # that the server has told of, for all streams together
        self.rest, self.tail = b"", b""
        if window is not None:
            settings = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + window.to_bytes(4, "big")
            all_of_it = (WINDOW_MAX - 0xFFFF).to_bytes(4, "big")
            self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, all_of_it))

    def prepare(self, path, body, half_close=True):
        """A stream that sends `body`, which is small: nobody looks at how much the server takes, 64 KiB at least. Returns its
        number, as `answered` and `ended` have it."""
        if path not in self.heads:
            self.heads[path] = headers(self.address, path)
        self.unsent += frame(HEADERS, END_HEADERS, self.next_stream, self.heads[path])
        self.unsent += frame(DATA, END_STREAM if half_close else 0, self.next_stream, body)
        self.next_stream += 2
        return (self.next_stream - 2).to_bytes(4, "big")

    def send(self):
        self.socket.sendall(self.unsent)
        self.unsent.clear()

    def read(self, marker):
        """What is there, and how often the marker is in it."""
        octets = self.socket.recv(1 << 20)
        if not octets:
            raise Wrong(f"{self.address} closed a connection")
        if marker:
            seen = self.tail + octets
            self.markers += seen.count(marker)
            self.tail = seen[1 - len(marker) :]
        octets = self.rest + octets
        at, end = 0, len(octets)
        while at + 9 <= end:
            length = octets[at] << 16 | octets[at + 1] << 8 | octets[at + 2]
            if at + 9 + length > end:
                break
            kind = octets[at + 3]
            if kind == HEADERS:
                if octets[at + 4] & END_STREAM:
                    self.ended.add(octets[at + 5 : at + 9])
            else:
                self.take(kind, octets[at + 4], octets[at + 5 : at + 9], octets[at + 9 : at + 9 + length])
            at += 9 + length
        self.rest = octets[at:]

    def take(self, kind, flags, stream, payload):
        if kind == DATA:
            self.answered.add(stream)
        elif kind == WINDOW_UPDATE and not any(stream):
            self.room += int.from_bytes(payload, "big")
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind in (GOAWAY, RST_STREAM):
            raise Wrong(f"{self.address} refused: frame {kind}, {payload!r}")


class Connections:
    """Connections to one server, closed at the end of the `with`. Nobody reads while nothing is awaited, so none is to
    be kept for longer than a server is silent: then it asks whether the client is still there."""

    def __init__(self, address, count):
        self.all = [Connection(address) for _ in range(count)]
        self.selector = selectors.DefaultSelector()
        for each in self.all:
            self.selector.register(each.socket, selectors.EVENT_READ, each)

    def open(self, path, body, streams_each, half_close=True):
        """Opens streams on each connection, and waits until each of them has an answer."""
        for each in self.all:
            each.answered.clear()
            for _ in range(streams_each):
                each.prepare(path, body, half_close)
            each.send()
        self.await_answers(streams_each)

    def ask(self, path, bodies):
        """Unary calls, as many on each connection, and waits for the answers. A refusal has no DATA, so is none."""
        each_has = len(bodies) // len(self.all)
        for number, each in enumerate(self.all):
            each.answered.clear()
            for request in bodies[number * each_has : (number + 1) * each_has]:
                each.prepare(path, request)
            each.send()
        self.await_answers(each_has)

    def await_answers(self, streams_each):
        def are_there():
            return all(len(each.answered) >= streams_each for each in self.all)

        self.read_until(are_there, "an answer on each stream")

    def tell(self, path, body):
        """A call on the first connection, whose answer nobody waits for."""
        self.all[0].prepare(path, body)
        self.all[0].send()

    def hear(self, marker, count, within_s=DEADLINE_S):
        """Waits until the marker has come so often, in all."""
        for each in self.all:
            each.markers, each.tail = 0, b""
        what = f"{count} × {marker!r}"
        self.read_until(lambda: sum(each.markers for each in self.all) >= count, what, marker, within_s)

    def read_until(self, is_so, what, marker=None, within_s=DEADLINE_S):
        end = time.monotonic() + within_s
        while not is_so():
            for key, _ in self.selector.select(max(end - time.monotonic(), 0)):
                key.data.read(marker)
            if time.monotonic() > end:
                raise Wrong(f"not within {within_s} s: {what}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.selector.close()
        for each in self.all:
            each.socket.close()
