"""A connection that breaks when a step says so."""

import asyncio
import contextlib


class Line:
    """A line to a server that can be cut, for both ends at once, and mended: meanwhile no connection is made."""

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
