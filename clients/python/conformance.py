"""Holds a pail server, and this client, to the contract: the steps of ../CONFORMANCE.md, a line each.

    conformance.py ADDRESS                  the steps; PAIL_SMALL and PAIL_BIN come from the runner
    conformance.py --link ADDRESS BUCKET    links the bucket, says so, and waits to be killed: step 6
"""

import asyncio
import contextlib
import signal
import struct
import sys

import grpc
from grpc import StatusCode as Code
from pail.v1 import pail_pb2 as pb
from pail.v1.pail_pb2_grpc import BucketServiceStub

from connect import connect
from fake import SILENCE, Fake, refusal
from harness import SOON_S, Line, Server, Wrong, holds, is_error, of, refused, same, soon
from watch import ResumingWatch

STEP_S = 60
SERVICE = "/pail.v1.BucketService/"


def client(address, *options):
    """A channel that is closed at the end of a `with`, and its stub."""
    channel = connect(address, *options)
    return channel, BucketServiceStub(channel)


def put(bucket, key, **value):
    return pb.PutRequest(bucket=bucket, key=key, value=pb.Value(**value))


def get(bucket, key):
    return pb.GetRequest(bucket=bucket, key=key)


async def create(stub, bucket):
    return (await stub.Create(pb.CreateRequest(bucket=bucket))).bucket


async def stop(stub, bucket, reason=pb.REASON_NORMAL, detail=""):
    return await stub.Stop(pb.StopRequest(bucket=bucket, reason=reason, detail=detail))


# 1


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


# 2


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


# 3


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


# 4


async def watch_by_name(address):
    channel, stub = client(address)
    async with channel:
        lives = await create(stub, "lives")
        watch = stub.Watch(pb.WatchRequest(buckets=["lives", "missing"]))
        started = (await soon("the begin", watch.read())).started
        found = [(monitor.bucket, monitor.bucket_id) for monitor in started.monitors]
        same("the monitors, in the order asked", found, [("lives", lives.id), ("missing", 0)])
        refs = [monitor.ref for monitor in started.monitors]
        holds("each has a ref of its own", 0 not in refs and refs[0] != refs[1])

        downs, is_synced = [], False
        while not (downs and is_synced):
            response = await soon("NOPROC and synced", watch.read())
            is_synced |= response.HasField("synced")
            downs += [event.down for event in response.events.events]
        await stop(stub, "lives", pb.REASON_CRASHED, "why")
        while (response := await soon("DOWN and the end", watch.read())) is not grpc.aio.EOF:
            downs += [event.down for event in response.events.events]
        same("the end of the watch", await watch.code(), Code.OK)

        found = [(down.ref, down.bucket, down.bucket_id, down.reason, down.detail) for down in downs]
        missing = (refs[1], "missing", 0, pb.REASON_NOPROC)
        same("NOPROC for the missing one", found[0][:4], missing)
        same("one DOWN for the other", found[1:], [(refs[0], "lives", lives.id, pb.REASON_CRASHED, "why")])


# 5


def told(event):
    """An event, as far as it says what happened."""
    if event.HasField("created"):
        created = event.created
        return ("CREATED", created.bucket, created.bucket_id, created.revision, created.initial)
    down = event.down
    return ("DOWN", down.bucket, down.bucket_id, down.revision, pb.Reason.Name(down.reason), down.detail)


def creation(bucket, initial=False):
    return ("CREATED", bucket.name, bucket.id, bucket.create_revision, initial)


def death(bucket, stopped, reason="REASON_NORMAL", detail=""):
    return ("DOWN", bucket.name, bucket.id, stopped.revision, reason, detail)


class Following:
    """A resuming watch as its user has it: what it was told, and how often to forget. It ends with a `with`."""

    def __init__(self, stub, request):
        self.events, self.resets = asyncio.Queue(), 0
        self.watch = ResumingWatch(stub, request, self._reset)

    def _reset(self):
        self.resets += 1

    async def _follow(self):
        async for event in self.watch:
            self.events.put_nowait(told(event))

    async def next(self, what, wanted):
        """The next event must be this one."""
        event = asyncio.ensure_future(self.events.get())
        await asyncio.wait([event, self.task], timeout=SOON_S, return_when=asyncio.FIRST_COMPLETED)
        if not event.done():
            event.cancel()
            raise Wrong(f"{what}: no event came") from (self.task.exception() if self.task.done() else None)
        same(what, event.result(), wanted)

    async def __aenter__(self):
        self.task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.wait([self.task])


async def watch_by_prefix(address):
    channel, stub = client(address)
    async with channel:
        await prefix_in_order(stub)
        async with Line(address) as line:
            far, far_stub = client(line.address)
            async with far:
                await prefix_over_a_cut(stub, far_stub, line)
    await prefix_over_every_end()


async def prefix_in_order(stub):
    one, two = await create(stub, "p/1"), await create(stub, "p/2")
    await create(stub, "other")
    watch = stub.Watch(pb.WatchRequest(prefix="p/"))
    holds("it begins with started", (await soon("the begin", watch.read())).HasField("started"))
    snapshot = []
    while not (response := await soon("the snapshot", watch.read())).HasField("synced"):
        snapshot += map(told, response.events.events)
    same("the snapshot", snapshot, [creation(one, initial=True), creation(two, initial=True)])
    holds("synced has a revision", response.revision >= two.create_revision)

    three = await create(stub, "p/3")
    happened = [creation(three), death(one, await stop(stub, "p/1", pb.REASON_KILLED, "why"), "REASON_KILLED", "why")]
    live = []
    while len(live) < len(happened):
        live += map(told, (await soon("what happens", watch.read())).events.events)
    same("what happens, in the order of revisions", live, happened)
    watch.cancel()
    await stop(stub, "other")


async def prefix_over_a_cut(stub, far_stub, line):
    two, three = await create(stub, "p/2"), await create(stub, "p/3")
    async with Following(far_stub, pb.WatchRequest(prefix="p/")) as following:
        await following.next("the first of the snapshot", creation(two, initial=True))
        await following.next("the second", creation(three, initial=True))
        four = await create(stub, "p/4")
        await following.next("a creation", creation(four))
        registry_id = following.watch.registry_id

        line.cut()
        stopped = await stop(stub, "p/2", pb.REASON_KILLED, "meanwhile")
        namesake, five = await create(stub, "p/2"), await create(stub, "p/5")
        line.mend()
        await following.next("the first that was missed", death(two, stopped, "REASON_KILLED", "meanwhile"))
        await following.next("the second that was missed", creation(namesake))
        await following.next("the third that was missed", creation(five))

        for bucket in (namesake, three, four, five):
            stopped = await stop(stub, bucket.name)
            await following.next("what happens after that", death(bucket, stopped))
        same("the registry and the resets", (following.watch.registry_id, following.resets), (registry_id, 0))


async def prefix_over_every_end():
    """The ends that a real server does not give when it is asked to, and from where the watch goes on after each."""

    def begin(registry_id, revision):
        return pb.WatchResponse(revision=revision, started=pb.WatchStarted(registry_id=registry_id))

    def synced(revision):
        return pb.WatchResponse(revision=revision, synced=pb.WatchSynced())

    lagged, compacted = Code.RESOURCE_EXHAUSTED, Code.OUT_OF_RANGE
    fake = Fake(
        [begin("one", 0), synced(7), SILENCE],
        [begin("one", 7), refusal(lagged, "WATCHER_LAGGED", resume_revision="9")],
        [refusal(Code.UNAVAILABLE, "OVERLOADED")],
        [refusal(compacted, "REVISION_COMPACTED", oldest_revision="20")],
        [begin("one", 0), refusal(Code.UNAVAILABLE, "DRAINING")],
        [begin("two", 0), synced(30), refusal(Code.INTERNAL, "PANIC")],
    )
    async with fake:
        channel, stub = client(fake.address)
        request = pb.WatchRequest(prefix="")
        request.heartbeat.FromMilliseconds(100)
        async with channel, Following(stub, request) as following:
            ended = await soon("an end that time does not mend", asyncio.wait([following.task]))
            same("that end", [task.exception().code() for task in ended[0]], [Code.INTERNAL])
    places = [(asked.registry_id, asked.after_revision) for asked in fake.asked]
    same("from where it went on", places, [("", 0), ("one", 7), ("one", 9), ("one", 9), ("", 0), ("", 0)])
    same("the resets", following.resets, 2)


# 6


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
        sys.executable, __file__, "--link", address, "killed", stdout=asyncio.subprocess.PIPE
    )
    try:
        same("the child's word", await soon("the child's word", child.stdout.readline()), b"linked\n")
        watch = stub.Watch(pb.WatchRequest(buckets=["killed"]))
        monitor = (await soon("the begin", watch.read())).started.monitors[0]
        holds("the bucket lives while its client does", monitor.bucket_id != 0)
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()

    async def down():
        while not (events := (await watch.read()).events.events):
            pass
        return events[0].down

    # Five seconds are the promise: a kernel closes the connections of a process that is killed.
    found = await asyncio.wait_for(down(), 5)
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


# 7


async def server_restart(_address):
    async with Server() as server:
        channel, stub = client(server.address)
        async with channel:
            await over_a_restart(server, stub)
    await while_unavailable()


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
        await refused(first_answer(stub, place), Code.OUT_OF_RANGE, "REVISION_UNKNOWN", field="after_revision")
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


# 8

OPS = 10_000
OPS_PER_MESSAGE = 250


def pipeline_op(op_id):
    """The first op creates a bucket, all others name it by that op; of ten, five put, four get, and one fails in its place."""
    if op_id == 1:
        return pb.PipelineOp(id=1, create=pb.CreateRequest(bucket="pipeline"))
    op = pb.PipelineOp(id=op_id, bucket_id_from=1)
    if op_id % 10 == 0:
        op.get.CopyFrom(get("pipeline", "absent"))
    elif op_id % 2 == 0:
        op.put.CopyFrom(put("pipeline", "k", integer=op_id))
    else:
        op.get.CopyFrom(get("pipeline", "k"))
    return op


async def pipeline(address):
    channel, stub = client(address)
    async with channel:

        async def messages():
            for first in range(1, OPS + 1, OPS_PER_MESSAGE):
                yield pb.PipelineRequest(ops=map(pipeline_op, range(first, first + OPS_PER_MESSAGE)))

        # gRPC sends what `messages` yields while the answers are read; its end is the half-close.
        answered, bucket_id, last_put = 0, None, None
        async for response in stub.Pipeline(messages()):
            for result in response.results:
                answered += 1
                same("the id of a result", result.id, answered)
                if answered == 1:
                    bucket_id = result.create.bucket.id
                elif answered % 10 == 0:
                    is_error("a get in vain", result.error, Code.NOT_FOUND, "KEY_NOT_FOUND", key="absent")
                elif answered % 2 == 0:
                    same("the bucket of a put", result.put.bucket_id, bucket_id)
                    last_put = answered
                else:
                    same("what a get finds", result.get.entry.value.integer, last_put)
        same("the answers", answered, OPS)
        await stop(stub, "pipeline")


# 9


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


STEPS = [
    ("session", session),
    ("values", values),
    ("reasons", reasons),
    ("watch by name", watch_by_name),
    ("watch by prefix", watch_by_prefix),
    ("link closed and link killed", links),
    ("server restart", server_restart),
    ("pipeline", pipeline),
    ("deadline and cancel", deadline_and_cancel),
]


async def run(address):
    passed = 0
    for number, (words, step) in enumerate(STEPS, start=1):
        try:
            await asyncio.wait_for(step(address), STEP_S)
        except Exception as why:  # whatever it is, the other steps are of interest too
            print(f"not ok {number} {words}: {type(why).__name__}: {why}", flush=True)
        else:
            passed += 1
            print(f"ok {number} {words}", flush=True)
    print(f"conformance: python: {passed} of {len(STEPS)}")
    return 0 if passed == len(STEPS) else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--link", address, bucket]:
            asyncio.run(link_and_wait(address, bucket))
        case [address]:
            sys.exit(asyncio.run(run(address)))
        case _:
            sys.exit(__doc__)
