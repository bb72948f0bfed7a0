"""A Watch that goes on: over lost connections, a server that restarts, and a history that has passed it. Copy it."""

import asyncio
import random

import grpc
from pail.v1 import pail_pb2 as pb

from errors import error_info


class ResumingWatch:
    """The events of a Watch by prefix, or by name with `follow`, each once and in order, for ever.

    Where what was missed is not to be had any more (another registry, or a history that has gone on), `on_reset` is
    called: forget what you know, a new snapshot follows. `registry_id` and `revision` are the place up to which you
    were told; put them into a request (`after_revision`) to go on from there. What time does not mend is raised.
    """

    def __init__(self, stub, request, on_reset):
        if not request.HasField("prefix") and not request.follow:
            raise ValueError("a watch by name without follow ends by itself: there is nothing to resume for ever")
        self.stub, self.request, self.on_reset = stub, request, on_reset
        self.registry_id, self.revision = request.registry_id, request.after_revision
        self.silence_s = 3 * (request.heartbeat.ToTimedelta().total_seconds() or 15)

    async def __aiter__(self):
        was_told, wait_s = self.revision != 0, 0.1
        while True:
            is_resumed, call = self.revision != 0, self.stub.Watch(self._from_here())
            try:
                while (response := await self._next(call)) is not grpc.aio.EOF:
                    if response.HasField("started"):
                        if was_told and not is_resumed:
                            self.on_reset()
                        self.registry_id, was_told, wait_s = response.started.registry_id, True, 0.1
                    for event in response.events.events:
                        yield event
                    self.revision = response.revision  # 0 within a snapshot, which can't be resumed
            except TimeoutError:
                pass  # not even heartbeats: nobody is there
            except grpc.aio.AioRpcError as error:
                info = error_info(error)
                if info.reason in ("REVISION_UNKNOWN", "REVISION_COMPACTED") and is_resumed:
                    self.revision = 0
                elif info.reason == "WATCHER_LAGGED":
                    self.revision = int(info.metadata.get("resume_revision", 0))
                elif error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
            finally:
                call.cancel()
            await asyncio.sleep(wait_s * random.uniform(0.5, 1))
            wait_s = min(2 * wait_s, 5)

    async def _next(self, call):
        async with asyncio.timeout(self.silence_s):
            return await call.read()

    def _from_here(self):
        request = pb.WatchRequest()
        request.CopyFrom(self.request)
        request.ClearField("after_revision"), request.ClearField("registry_id")
        if self.revision:
            request.after_revision, request.registry_id = self.revision, self.registry_id
        return request
