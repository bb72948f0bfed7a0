"""Step 3: every reason that a client can cause, with its code and its facts."""

import grpc
from grpc import StatusCode as Code
from pail.v1 import pail_pb2 as pb

from steps.calls import client, create, get, put, stop
from steps.checks import is_error, of, refused, same, soon

SERVICE = "/pail.v1.BucketService/"


async def reasons(address):
    channel, stub = client(address)
    async with channel:
        await reasons_of_requests(channel, stub)
        await reasons_of_state(stub)
        await reasons_of_streams(stub)
    # A connection of its own: the limit on long streams counts by connection. And a window that does not grow.
    small, stub = client(of("PAIL_SMALL"), ("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
    async with small:
        await reasons_of_limits(stub)
        await reasons_of_history(stub)
        await reasons_of_many_streams(stub)


async def reasons_of_requests(channel, stub):
    wrong = Code.INVALID_ARGUMENT
    b = await create(stub, "b")
    nameless = stub.Create(pb.CreateRequest())
    await refused(nameless, wrong, "INVALID_NAME", field="bucket", limit=255, actual=0)
    await refused(stub.Get(get("b", "")), wrong, "INVALID_KEY", field="key", limit=1_024, actual=0)
    await refused(stub.Put(pb.PutRequest(bucket="b", key="k")), wrong, "INVALID_VALUE", field="value")
    await refused(stub.List(pb.ListRequest(page_size=-1)), wrong, "INVALID_OPTION", field="page_size")
    await refused(stub.List(pb.ListRequest(page_token="?")), wrong, "INVALID_PAGE_TOKEN", field="page_token")
    large = stub.Put(put("b", "k", data=bytes((1 << 20) + 1)))
    await refused(large, wrong, "TOO_LARGE", field="value", limit=1 << 20, actual=(1 << 20) + 1)
    await refused(channel.unary_unary(SERVICE + "Create")(b"\xff\xff\xff"), wrong, "INVALID_MESSAGE")
    await refused(channel.unary_unary(SERVICE + "Destroy")(b""), Code.UNIMPLEMENTED, "UNIMPLEMENTED")
    same("the version of a bucket of which all was refused", b.version, 0)


async def reasons_of_state(stub):
    await refused(stub.Get(get("nobody", "k")), Code.NOT_FOUND, "BUCKET_NOT_FOUND", bucket="nobody", key="k")
    await refused(stub.Get(get("b", "k")), Code.NOT_FOUND, "KEY_NOT_FOUND", bucket="b", key="k")
    await stub.Put(put("b", "k", text="not a number"))
    await stub.Put(put("b", "most", integer=2**63 - 1))
    broken = Code.FAILED_PRECONDITION
    add = stub.Add(pb.AddRequest(bucket="b", key="k", delta=1))
    await refused(add, broken, "WRONG_TYPE", bucket="b", key="k")
    again = pb.PutRequest(bucket="b", key="k", value=pb.Value(flag=True), expected_version=0)
    await refused(stub.Put(again), broken, "VERSION_MISMATCH", key="k", actual_version=1)
    more = stub.Add(pb.AddRequest(bucket="b", key="most", delta=1))
    await refused(more, Code.OUT_OF_RANGE, "INTEGER_OVERFLOW", bucket="b", key="most")


async def reasons_of_streams(stub):
    future = pb.WatchRequest(prefix="", after_revision=2**62)
    await refused(stub.Watch(future).read(), Code.OUT_OF_RANGE, "REVISION_UNKNOWN", field="after_revision")

    b = (await stub.Lookup(pb.LookupRequest(bucket="b"))).bucket
    link = stub.Link()
    await link.write(pb.LinkRequest(id=1, link=pb.LinkBucket(bucket="b", mode=pb.LINK_MODE_MUST_CREATE)))
    answer = await soon("the answer to a link", link.read())
    facts = {"bucket": "b", "bucket_id": b.id}
    same("the id of the answer", answer.id, 1)
    is_error("a link to what lives", answer.error, Code.ALREADY_EXISTS, "BUCKET_EXISTS", **facts)

    await link.write(pb.LinkRequest(id=2, link=pb.LinkBucket(bucket="b")))
    same("the link's bucket", (await soon("the link", link.read())).linked.bucket_id, b.id)
    await stop(stub, "b", pb.REASON_KILLED, "why")
    exit = (await soon("the exit", link.read())).exit
    same("the exit", (exit.bucket, exit.bucket_id, exit.reason, exit.detail), ("b", b.id, pb.REASON_KILLED, "why"))
    await refused(link.read(), Code.ABORTED, "LINKED_EXIT", **facts)


# Past any limit that a small server has.
MANY = 1_000


async def reasons_of_limits(stub):
    full = Code.RESOURCE_EXHAUSTED
    created = []

    async def fill_buckets():
        for n in range(MANY):
            created.append((await create(stub, f"b{n}")).name)

    await refused(fill_buckets(), full, "TOO_MANY_BUCKETS", limit=len(created) or None)

    async def fill_entries():
        for n in range(MANY):
            await stub.Put(put("b0", f"k{n}", flag=True))

    await refused(fill_entries(), full, "TOO_MANY_ENTRIES", bucket="b0", limit=None)
    large = put("b1", "k", data=bytes(1 << 20))
    await refused(stub.Put(large), full, "OUT_OF_MEMORY", bucket="b1", limit=None)
    for bucket in created:
        await stop(stub, bucket)


async def churn(stub, times):
    """Lets the history go on by as many buckets that come and go, each with a word of 1 KiB."""
    for _ in range(times):
        await create(stub, "churn")
        await stop(stub, "churn", detail="d" * 1_024)


async def reasons_of_history(stub):
    slow = stub.Watch(pb.WatchRequest(prefix=""))
    registry_id = (await soon("the begin of a watch", slow.read())).started.registry_id
    revision = (await soon("its snapshot", slow.read())).revision
    # Far more than the server and the connection hold for a stream that is not read.
    await churn(stub, 600)

    async def read_to_the_end():
        while (await slow.read()) is not grpc.aio.EOF:
            pass

    await refused(read_to_the_end(), Code.RESOURCE_EXHAUSTED, "WATCHER_LAGGED", resume_revision=None)
    late = pb.WatchRequest(prefix="", after_revision=revision, registry_id=registry_id)
    await refused(stub.Watch(late).read(), Code.OUT_OF_RANGE, "REVISION_COMPACTED", oldest_revision=None)


async def reasons_of_many_streams(stub):
    open_streams = []

    async def fill_streams():
        for _ in range(MANY):
            open_streams.append(stub.Watch(pb.WatchRequest(prefix="")))
            await open_streams[-1].read()

    await refused(fill_streams(), Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", limit=None)
    for stream in open_streams:
        stream.cancel()
