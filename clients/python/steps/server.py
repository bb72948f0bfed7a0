"""A server of a step's own."""

import asyncio
import json
import signal

from steps.checks import Wrong, of, same, soon


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
