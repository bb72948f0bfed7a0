"""What the conformance steps stand on: a check that fails with words, a server of their own, and a line that can be cut."""

import asyncio
import contextlib
import json
import os
import signal

import grpc
from grpc_status import rpc_status

from errors import info_of

# Longer than anything here takes: past it, what was waited for does not come.
SOON_S = 10


class Wrong(Exception):
    """The server, or the client, did not do what it must."""


def same(what, actual, wanted):
    if actual != wanted:
        raise Wrong(f"{what}: {actual!r} instead of {wanted!r}")


def holds(what, condition):
    if not condition:
        raise Wrong(f"{what}: it does not hold")


def of(variable):
    """The value of an environment variable that the runner sets."""
    if value := os.environ.get(variable):
        return value
    raise Wrong(f"{variable} is not set: see CONFORMANCE.md")


async def soon(what, awaitable):
    try:
        return await asyncio.wait_for(awaitable, SOON_S)
    except asyncio.TimeoutError:
        raise Wrong(f"{what}: it did not come within {SOON_S} s") from None


def is_error(what, status, code, reason, **facts):
    """Holds a google.rpc.Status to its code, reason and facts; a fact that is None must be there, whatever it is."""
    same(f"{what}: its code", status.code, code.value[0])
    info = info_of(status.details)
    same(f"{what}: its domain and reason", (info.domain, info.reason), ("pail", reason))
    for name, value in facts.items():
        holds(f"{what}: its metadata has {name}", name in info.metadata)
        if value is not None:
            same(f"{what}: {name} of its metadata", info.metadata[name], str(value))


async def refused(call, code, reason, **facts):
    """Waits for a call to fail, and for that reason."""
    try:
        answer = await asyncio.wait_for(call, SOON_S)
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        if status is None:
            raise Wrong(f"{reason}: it has no details, but: {error.code()}: {error.details()}") from None
        is_error(reason, status, code, reason, **facts)
    else:
        raise Wrong(f"{reason}: it was not refused, but answered: {answer}")


class Server:
    """`pail serve`, on a free port at first and on the same one again; never left running."""

    def __init__(self):
        self.port, self.process, self.log = 0, None, None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            of("PAIL_BIN"), "serve", "--listen", self.address, "--log-format", "json", stderr=asyncio.subprocess.PIPE
        )
        self.port = int((await soon("the server's address", self._listening())).rpartition(":")[2])
        # Somebody has to read the log, or the server would wait for it.
        self.log = asyncio.create_task(self.process.stderr.read())

    async def _listening(self):
        async for line in self.process.stderr:
            fields = json.loads(line)["fields"] if line.startswith(b"{") else {}
            if fields.get("message") == "listening":
                return fields["address"]
        raise Wrong("the server did not start")

    async def stop(self):
        self.process.send_signal(signal.SIGTERM)
        same("the server's exit code", await soon("the server's end", self.process.wait()), 0)

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Line:
    """A line to a server that can be cut, and mended: a connection breaks for everybody at once, and none is made anew."""

    def __init__(self, address):
        self.target, self.is_cut, self.ends = address.rsplit(":", 1), False, set()

    async def _accept(self, reader, writer):
        with contextlib.suppress(OSError), contextlib.closing(writer):
            if self.is_cut:
                return
            ahead, back = await asyncio.open_connection(*self.target)
            with contextlib.closing(back):
                self.ends |= {writer, back}
                await asyncio.gather(self._pump(reader, back), self._pump(ahead, writer))

    async def _pump(self, source, sink):
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()

    def cut(self):
        self.is_cut = True
        for end in self.ends:
            end.transport.abort()
        self.ends.clear()

    def mend(self):
        self.is_cut = False

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = "127.0.0.1:%d" % self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.cut()
        self.listener.close()
