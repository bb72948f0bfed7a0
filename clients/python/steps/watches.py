"""Steps 4 and 5: a Watch by name and by prefix, and one that goes on over whatever ends it."""

import asyncio

import grpc
from grpc import StatusCode as Code
from pail.v1 import pail_pb2 as pb

from steps.calls import client, create, stop
from steps.checks import SOON_S, Wrong, holds, same, soon
from steps.fake import SILENCE, Fake, refusal
from steps.line import Line
from watch import ResumingWatch


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
        await soon("the end of a watch that nobody wants any more", asyncio.wait([self.task]))


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
    by_name = pb.WatchRequest(buckets=["p/2"], follow=True)
    async with (
        Following(far_stub, pb.WatchRequest(prefix="p/")) as following,
        Following(far_stub, by_name) as name,
    ):
        await name.next("the bucket of that name", creation(two, initial=True))
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
        await name.next("the death of that name", death(two, stopped, "REASON_KILLED", "meanwhile"))
        await name.next("its creation", creation(namesake))

        for bucket in (namesake, three, four, five):
            stopped = await stop(stub, bucket.name)
            await following.next("what happens after that", death(bucket, stopped))
            if bucket == namesake:
                await name.next("its death", death(bucket, stopped))
        same("the registry and the resets", (following.watch.registry_id, following.resets), (registry_id, 0))
        same("the resets of the name", name.resets, 0)


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
