"""Rows about many: buckets, watches, deaths. What is not a matter of one answer each."""

import math
import time
from functools import partial

import messages as m
import peers
from gauge import cpu_s, settled
from load import H2Load
from race import BYTES, CPU, GENERATOR, RATE, Lane
from unary import BUCKET, ETCD, PAIL, SERVICE, STOCK, VALUE_BYTES, body, etcd, pail
from wire import Connections
from world import Server, Wrong, rss_bytes

ELIXIR = "elixir"
ANY_ANSWER = (1, math.inf)


def elixir(figure, unit=RATE):
    peers.need("elixir", "elixir")
    return Lane(ELIXIR, lambda: {unit: peers.beam(figure)}, f"elixir benches/beam.exs {figure}")


def core(name, ops=1):
    """A measurement of benches/core, of which each iteration does so many operations."""
    peers.core()
    return Lane(PAIL, lambda: {RATE: ops * 1e9 / peers.core_ns(name)}, f"cargo bench --bench core -- '{name}'")


def in_process(name, figure, ops=1):
    def lanes(_stack, _setting, enter):
        enter(PAIL, lambda: core(name, ops))
        enter(ELIXIR, lambda: elixir(figure))

    return lanes


# h2load sends the whole of a Pipeline as one request.


def filled(setting, server, name, requests, kind, ops_per_message=500):
    """Runs operations by Pipeline, in their order, and returns how long that took. What became of each is not seen:
    ask for the last one, since a limit that one of them met would have stopped that, too."""
    request = body(setting, name, m.pipeline(kind, requests, ops_per_message))
    load = H2Load(SERVICE + "Pipeline", request, 1, 1, ANY_ANSWER)
    return load.run(server.address, 1).seconds


def sixteen(number):
    return f"bucket-{number:09}"


def creates(stack, setting, enter):
    count, batch = 200_000, iter(range(1_000))

    def contender():
        server = pail(stack, setting)

        def measure():
            begin = next(batch) * count
            before = cpu_s(server.pid)
            names = map(sixteen, range(begin, begin + count))
            seconds = filled(setting, server, "creates", map(m.create, names), m.CREATE)
            require_bucket(server, sixteen(begin + count - 1))
            return {RATE: count / seconds, CPU: (cpu_s(server.pid) - before) / count * 1e6}

        return Lane(PAIL, measure, f"h2load -n 1, a Pipeline of {count:,} creates, 500 a message")

    enter(PAIL, contender)
    enter(ELIXIR, lambda: elixir("create"))


def require_bucket(server, name):
    if not server.has(name):
        raise Wrong(f"{name} was not created")


def empty_buckets(stack, setting, enter):
    count = 1_000_000

    def measure():
        with Server(setting.pail) as server:
            filled(setting, server, "million", (m.create(sixteen(number)) for number in range(count)), m.CREATE)
            require_bucket(server, sixteen(count - 1))
            settled(server.pid)
            return {BYTES: rss_bytes(server.pid) / count}

    enter(PAIL, lambda: Lane(PAIL, measure, f"VmRSS after a Pipeline of {count:,} creates, divided by their number"))
    enter(ELIXIR, lambda: elixir("memory", BYTES))


def idle_watches(stack, setting, enter):
    connections, more = 100, 100
    request = m.framed(m.watch_bucket(BUCKET))

    def measure(start, prepare):
        with start() as server, Connections(server.address, connections) as clients:
            prepare(server)
            clients.open(SERVICE + "Watch", request, 1)
            settled(server.pid)
            before = rss_bytes(server.pid)
            clients.open(SERVICE + "Watch", request, more)
            settled(server.pid)
            return {BYTES: (rss_bytes(server.pid) - before) / (connections * more)}

    command = f"VmRSS of {connections} connections with {1 + more} Watches each, less that with 1, a Watch"

    def ours():
        return partial(measure, lambda: Server(setting.pail), lambda server: server.do("create", BUCKET))

    def theirs():
        peers.stock("stock-tonic")
        return partial(measure, lambda: peers.StockTonic(VALUE_BYTES), lambda _: None)

    enter(PAIL, lambda: Lane(PAIL, ours(), command))
    enter(STOCK, lambda: Lane(STOCK, theirs(), command))


def fan_out(stack, setting, enter):
    """Put after Put, each when all watchers have the one before."""
    connections, streams, puts = 100, 100, 20

    def contender(name, server, watch_path, watch, half_close, put_path, put_request):
        def measure():
            with Connections(server.address, connections) as watchers, Connections(server.address, 1) as writer:
                watchers.open(watch_path, m.framed(watch), streams, half_close)
                settled(server.pid)
                before, start, own = cpu_s(server.pid), time.monotonic(), time.process_time()
                for number in range(puts):
                    marker = f"marker-{number:08}"
                    writer.tell(put_path, m.framed(put_request(marker)))
                    watchers.hear(marker.encode(), connections * streams)
                seconds, own = time.monotonic() - start, time.process_time() - own
                spent_s, deliveries = cpu_s(server.pid) - before, puts * connections * streams
                return {RATE: deliveries / seconds, CPU: spent_s / deliveries * 1e6, GENERATOR: own / seconds}

        command = f"{puts} Puts, one after the other, to {connections} × {streams} streams of {watch_path}"
        return Lane(name, measure, command)

    def ours():
        watch, write = m.watch_entries(BUCKET, "watched"), partial(m.put, BUCKET, "watched")
        return contender(PAIL, pail(stack, setting), SERVICE + "Watch", watch, True, SERVICE + "Put", write)

    def theirs():
        watch, write = m.etcd_watch("watched"), partial(m.etcd_put, "watched")
        paths = ("/etcdserverpb.Watch/Watch", "/etcdserverpb.KV/Put")
        # etcd ends a watch whose client has nothing more to say.
        return contender(ETCD, etcd(stack, setting), paths[0], watch, False, paths[1], write)

    enter(PAIL, ours)
    enter(ETCD, theirs)


def downs(stack, setting, enter):
    """From the first Stop to the last DOWN in the hands of one who watches the prefix: a watch is in order."""
    count = 100_000

    def contender():
        server = pail(stack, setting)
        rounds = iter(range(1_000))

        def measure():
            number = next(rounds)
            names = [f"down-{number}/{each:06}" for each in range(count)]
            filled(setting, server, "to-stop", map(m.create, names), m.CREATE)
            load = body(setting, "stops", m.pipeline(m.STOP, map(m.stop, names), 500))
            stops = H2Load(SERVICE + "Pipeline", load, 1, 1, ANY_ANSWER)
            with Connections(server.address, 1) as watcher:
                watcher.open(SERVICE + "Watch", m.framed(m.watch_downs(f"down-{number}/")), 1)
                before, start = cpu_s(server.pid), time.monotonic()
                with stops.started(server.address, 1):
                    watcher.hear(names[-1].encode(), 1)
                    seconds = time.monotonic() - start
            return {RATE: count / seconds, CPU: (cpu_s(server.pid) - before) / count * 1e6}

        command = f"h2load -n 1, a Pipeline of {count:,} stops, 500 a message; and one Watch of their prefix"
        return Lane(PAIL, measure, command)

    enter(PAIL, contender)
    enter(ELIXIR, lambda: elixir("down"))


def one_and_a_million(stack, setting, enter):
    """The same Gets by the same client, in bursts of a hundred on each of 8 connections: all of one bucket, or each of
    another."""
    entries, in_one_file, bursts, connections, streams = 10, 50_000, 100, 8, 100
    puts = m.transact_puts((f"key-{number}", "x" * 16) for number in range(entries))

    def contender(name, count):
        server = stack.enter_context(Server(setting.pail))
        for begin in range(0, count, in_one_file):
            names = [sixteen(number) for number in range(begin, min(begin + in_one_file, count))]
            filled(setting, server, "fill", map(m.create, names), m.CREATE)
            filled(setting, server, "fill", (m.field(1, each) + puts for each in names), m.TRANSACT)
        require_bucket(server, sixteen(count - 1))
        # A stride that is prime meets them all, and no two neighbours.
        names = (sixteen(number * 611_953 % count) for number in range(bursts * connections * streams))
        each = [m.framed(m.get(name, "key-7")) for name in names]

        def measure():
            with Connections(server.address, connections) as clients:
                before, start, own = cpu_s(server.pid), time.monotonic(), time.process_time()
                for at in range(0, len(each), connections * streams):
                    clients.ask(SERVICE + "Get", each[at : at + connections * streams])
                seconds, own = time.monotonic() - start, time.process_time() - own
                spent_s = cpu_s(server.pid) - before
            return {RATE: len(each) / seconds, CPU: spent_s / len(each) * 1e6, GENERATOR: own / seconds}

        command = f"{len(each):,} Gets of {count:,} buckets of {entries} entries, {connections} × {streams} at a time"
        return Lane(name, measure, command)

    enter("1 bucket", lambda: contender("1 bucket", 1))
    enter("1,000,000 buckets", lambda: contender("1,000,000 buckets", 1_000_000))
