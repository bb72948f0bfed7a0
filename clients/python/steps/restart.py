"""Step 7: a server that goes and comes back, with another registry."""

import asyncio
import signal

import grpc
from grpc import StatusCode as Code
from pail.v1 import pail_pb2 as pb

from steps.calls import client, create, get, put
from steps.checks import Wrong, holds, refused, same, soon
from steps.fake import Fake
from steps.server import Server
from steps.watches import Following, creation


async def server_restart(_address):
    async with Server() as server:
        channel, stub = client(server.address)
        async with channel:
            await over_a_restart(server, stub)
    await while_unavailable()
    await while_it_stands_still()


async def over_a_restart(server, stub):
    before = await create(stub, "r/1")
    watch = stub.Watch(pb.WatchRequest(prefix="r/"))
    async with Following(stub, pb.WatchRequest(prefix="r/")) as following:
        await following.next("the snapshot", creation(before, initial=True))
        registry_id = following.watch.registry_id
        while not (response := await soon("the snapshot", watch.read())).HasField("synced"):
            pass
        place = pb.WatchRequest(prefix="r/", after_revision=response.revision, registry_id=registry_id)

        await server.stop()
        await is_told_of_the_drain(watch, before)
        kind, name, *_, reason, _ = await soon("the DOWN", following.events.get())
        same("what the drain ends", (kind, name, reason), ("DOWN", "r/1", "REASON_SHUTDOWN"))

        await server.start()
        await refused(first_answer(stub, place), Code.OUT_OF_RANGE, "REVISION_UNKNOWN", field="registry_id")
        after = await create(stub, "r/2")
        event = await soon("the new snapshot", following.events.get())
        # It was created before the new snapshot was taken, or after.
        same("the new life", event[:4], creation(after)[:4])
        same("the resets", following.resets, 1)
        holds("the registry is another", following.watch.registry_id not in ("", registry_id))


async def is_told_of_the_drain(watch, bucket):
    """Exactly one DOWN with SHUTDOWN, then `draining`, then UNAVAILABLE / DRAINING."""
    seen = []

    async def read_to_the_end():
        while (response := await watch.read()) is not grpc.aio.EOF:
            seen.extend(event.down.bucket_id for event in response.events.events)
            if response.HasField("draining"):
                seen.append("draining")

    await refused(read_to_the_end(), Code.UNAVAILABLE, "DRAINING")
    same("what a drain tells", seen, [bucket.id, "draining"])


async def first_answer(stub, request):
    """What the server that has just started answers: the channel may not have found it yet."""
    call = stub.Watch(request, wait_for_ready=True)
    return await call.read()


async def while_unavailable():
    """What may be done twice is tried as often as the service config says, and what may not is tried once."""
    async with Fake() as fake:
        channel, stub = client(fake.address)
        async with channel:
            for call, request in ((stub.Get, get("b", "k")), (stub.Put, put("b", "k", flag=True))):
                try:
                    await soon("the answer", call(request))
                    raise Wrong("it was answered")
                except grpc.aio.AioRpcError as error:
                    same("the answer", error.code(), Code.UNAVAILABLE)
    same("what was tried", fake.calls, ["Get"] * 5 + ["Put"])


async def while_it_stands_still():
    """A server that is there and does nothing: the channel's pings find it out, 10 s and then 5 s for the answer."""
    async with Server() as server:
        channel, stub = client(server.address)
        async with channel:
            watch = stub.Watch(pb.WatchRequest(prefix=""))
            while not (await soon("the snapshot", watch.read())).HasField("synced"):
                pass
            server.process.send_signal(signal.SIGSTOP)
            try:
                async with asyncio.timeout(20):
                    answer = await watch.read()
            except TimeoutError:
                raise Wrong("a connection on which nobody answers is not found out within 20 s") from None
            except grpc.aio.AioRpcError as error:
                same("the end of a watch on it", error.code(), Code.UNAVAILABLE)
            else:
                raise Wrong(f"a server that stands still has sent {answer}")
