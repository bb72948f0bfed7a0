"""Step 6: a Link that is closed, and one whose client is killed."""

import asyncio
import signal
import sys

import grpc
from grpc import StatusCode as Code
from pail.v1 import pail_pb2 as pb

from steps.calls import client, stop
from steps.checks import holds, same, soon


async def links(address):
    channel, stub = client(address)
    async with channel:
        await link_closed(stub)
        await link_killed(stub, address)


async def link_closed(stub):
    link = stub.Link()
    mode = pb.LINK_MODE_MUST_CREATE
    await link.write(pb.LinkRequest(id=7, link=pb.LinkBucket(bucket="closed", mode=mode)))
    answer = await soon("the link", link.read())
    same("the answer's id", answer.id, 7)
    await link.done_writing()
    same("what comes after a good-bye", await soon("the end of the link", link.read()), grpc.aio.EOF)
    same("the end of the link", await link.code(), Code.OK)
    bucket = (await stub.Lookup(pb.LookupRequest(bucket="closed"))).bucket
    same("the bucket that lives on", bucket.id, answer.linked.bucket_id)
    await stop(stub, "closed")


async def link_killed(stub, address):
    child = await asyncio.create_subprocess_exec(
        sys.executable, sys.argv[0], "--link", address, "killed", stdout=asyncio.subprocess.PIPE
    )
    try:
        same("the child's word", await soon("the child's word", child.stdout.readline()), b"linked\n")
        watch = stub.Watch(pb.WatchRequest(buckets=["killed"]))
        monitor = (await soon("the begin", watch.read())).started.monitors[0]
        holds("the bucket lives while its client does", monitor.bucket_id != 0)
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()

    # Five seconds are the promise: a kernel closes the connections of a process that is killed.
    async with asyncio.timeout(5):
        while not (events := (await watch.read()).events.events):
            pass
    found = events[0].down
    same("the DOWN", (found.bucket_id, found.reason), (monitor.bucket_id, pb.REASON_NOCONNECTION))


async def link_and_wait(address, bucket):
    channel, stub = client(address)
    async with channel:
        link = stub.Link()
        mode = pb.LINK_MODE_MUST_CREATE
        await link.write(pb.LinkRequest(link=pb.LinkBucket(bucket=bucket, mode=mode)))
        if (await link.read()).HasField("linked"):
            print("linked", flush=True)
        await link.read()
