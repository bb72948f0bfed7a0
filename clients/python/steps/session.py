"""Steps 1, 2 and 9: calls one by one, what comes back of a value, and calls that are given up."""

import asyncio
import contextlib
import struct

import grpc
from grpc import StatusCode as Code
from pail.v1 import pail_pb2 as pb

from steps.calls import client, create, get, put, stop
from steps.checks import Wrong, holds, refused, same, soon


async def session(address):
    channel, stub = client(address)
    async with channel:
        created = await stub.Create(pb.CreateRequest(bucket="shopping"))
        same("the first Create has created", created.created, True)
        again = await stub.Create(pb.CreateRequest(bucket="shopping"))
        same("the second Create", (again.created, again.bucket.id), (False, created.bucket.id))
        lookup = stub.Lookup(pb.LookupRequest(bucket="nobody"))
        await refused(lookup, Code.NOT_FOUND, "BUCKET_NOT_FOUND", bucket="nobody")

        await stub.Put(put("shopping", "milk", integer=3))
        milk = (await stub.Get(get("shopping", "milk"))).entry
        same("what Get finds", (milk.value.WhichOneof("kind"), milk.value.integer, milk.version), ("integer", 3, 1))
        eggs = stub.Get(get("shopping", "eggs"))
        await refused(eggs, Code.NOT_FOUND, "KEY_NOT_FOUND", bucket="shopping", key="eggs")
        delete = pb.DeleteRequest(bucket="shopping", key="milk")
        same("what Delete removed", (await stub.Delete(delete)).entry, milk)
        same("whether Delete found it again", (await stub.Delete(delete)).HasField("entry"), False)

        await stop(stub, "shopping")
        await refused(stub.Lookup(pb.LookupRequest(bucket="shopping")), Code.NOT_FOUND, "BUCKET_NOT_FOUND")
        namesake = await create(stub, "shopping")
        holds("a namesake has another id", namesake.id != created.bucket.id)
        await stop(stub, "shopping")


def double(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


VALUES = [
    *({"text": text} for text in ("", "two loaves", "käse 🧀", "\0\n")),
    *({"data": data} for data in (b"", bytes(range(256)))),
    *({"integer": integer} for integer in (0, -1, 3, -(2**63), 2**63 - 1)),
    # The last one is a quiet NaN with a payload.
    *({"number": double(bits)} for bits in (0, 1 << 63, 1, 0x7FF0 << 48, 0xFFF0 << 48, 0x7FF80000DEADBEEF)),
    *({"flag": flag} for flag in (False, True)),
]


async def values(address):
    channel, stub = client(address)
    async with channel:
        await create(stub, "values")
        for value in VALUES:
            await stub.Put(put("values", "k", **value))
            found = (await stub.Get(get("values", "k"))).entry.value
            # The bytes of the message hold the bits of a NaN, which is equal to nothing, and the kind.
            same(f"{value}", found.SerializeToString(), pb.Value(**value).SerializeToString())
        await stop(stub, "values")


async def deadline_and_cancel(address):
    channel, stub = client(address)
    async with channel:
        try:
            await soon("the deadline", read_until_it_ends(stub.Watch(pb.WatchRequest(prefix=""), timeout=0.3)))
            raise Wrong("a watch past its deadline ended with OK")
        except grpc.aio.AioRpcError as error:
            same("the end of a watch past its deadline", error.code(), Code.DEADLINE_EXCEEDED)

        watch = stub.Watch(pb.WatchRequest(prefix=""))
        holds("a watch begins", (await soon("the begin", watch.read())).HasField("started"))
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await soon("the cancel", read_until_it_ends(watch))
        same("the end of a watch that was cancelled", await watch.code(), Code.CANCELLED)

        await create(stub, "after")
        await stop(stub, "after")


async def read_until_it_ends(watch):
    while (await watch.read()) is not grpc.aio.EOF:
        pass
