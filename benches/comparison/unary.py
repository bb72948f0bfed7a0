"""Rows in which each request is answered once: the same body again and again, by h2load or redis-benchmark."""

from functools import partial

import messages as m
import peers
from load import H2Load, H2LoadAnew, RedisBenchmark, output_of
from race import served
from world import DEADLINE_S, Server

SERVICE = "/pail.v1.BucketService/"
BUCKET, KEY = "bench", "key"
VALUE_BYTES = 64
# As long on the wire as every id of pail's, and as the one that stock tonic answers with.
ID = 1_764_000_000_000_001

PAIL, TLS, STOCK, REDIS, ETCD = "pail", "pail by TLS", "stock tonic", "redis", "etcd"
# Connections that are made for one request each.
ANEW = 2_000
# Operations in a message, and messages in a stream.
PACKED, PACKS = 100, 100


def body(setting, name, octets):
    path = setting.directory / name
    path.write_bytes(octets)
    return path


# Servers, with what the loads expect to find.


def pail(stack, setting, values=(VALUE_BYTES,), tls=False):
    """pail with one bucket, and in it a value of each size, under KEY and the size."""
    files = certified(setting) if tls else {}
    server = stack.enter_context(Server(setting.pail, *(word for pair in files.items() for word in pair)))
    if tls:
        server.env |= {"PAIL_ADDR": f"https://{server.address}", "PAIL_CA": files["--tls-cert"]}
    server.do("create", BUCKET)
    for each in values:
        server.do("put", BUCKET, f"{KEY}{each}", "x" * each)
    return server


def certified(setting):
    """A certificate of this address, by itself, and its key, as pail is told of them."""
    peers.need("openssl", "openssl")
    cert, key = setting.directory / "cert.pem", setting.directory / "key.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=pail", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    output_of(["openssl", "req", "-x509", *curve, *names, "-keyout", key, "-out", cert], DEADLINE_S)
    return {"--tls-cert": str(cert), "--tls-key": str(key)}


def stock_tonic(stack):
    return stack.enter_context(peers.StockTonic(VALUE_BYTES))


def redis(stack, setting, load):
    """Its lane, whatever the load."""
    peers.need("redis-server", "redis-server")
    peers.need("redis-benchmark", "redis-tools")
    server = stack.enter_context(peers.Redis())
    load.put(server.address)
    return served(REDIS, server, load, setting)


def etcd(stack, setting):
    server = stack.enter_context(peers.Etcd())
    etcd_put(setting, 1, 1).run(server.address, 1)
    return server


# Loads.


def get_answer(key, value_bytes, version):
    entry = m.field(1, key) + m.field(2, m.text("x" * value_bytes)) + m.field(3, version)
    return m.field(1, entry) + m.field(2, ID)


def get(setting, connections=8, streams=100, value_bytes=VALUE_BYTES, **scheme):
    key = f"{KEY}{value_bytes}"
    request = body(setting, f"get-{value_bytes}", m.framed(m.get(BUCKET, key)))
    size = len(m.framed(get_answer(key, value_bytes, 1)))
    return H2Load(SERVICE + "Get", request, connections, streams, (size, size), **scheme)


def get_anew(setting, **scheme):
    """A Get by a connection of its own."""
    each = get(setting, ANEW, 1)
    return H2LoadAnew(each.path, each.body, ANEW, 1, each.answer_bytes, **scheme)


def put(setting, connections, streams):
    request = body(setting, "put", m.framed(m.put(BUCKET, KEY, "x" * VALUE_BYTES)))
    sizes = [len(m.framed(m.field(1, version) + m.field(2, ID))) for version in (1, 1 << 34)]
    return H2Load(SERVICE + "Put", request, connections, streams, tuple(sizes))


def etcd_get(setting, connections, streams):
    request = body(setting, "etcd-range", m.framed(m.etcd_range(KEY)))
    return H2Load("/etcdserverpb.KV/Range", request, connections, streams, (VALUE_BYTES + 20, VALUE_BYTES + 80))


def etcd_put(setting, connections, streams):
    request = body(setting, "etcd-put", m.framed(m.etcd_put(KEY, "x" * VALUE_BYTES)))
    return H2Load("/etcdserverpb.KV/Put", request, connections, streams, (15, 60))


def unary(load, connections, streams):
    """pail and stock tonic under the same load."""

    def lanes(stack, setting, enter):
        shape = load(setting, connections, streams)
        enter(PAIL, lambda: served(PAIL, pail(stack, setting), shape, setting))
        enter(STOCK, lambda: served(STOCK, stock_tonic(stack), shape, setting))

    return lanes


def by_tls(load):
    """pail in the clear and by TLS, under the same load."""

    def lanes(stack, setting, enter):
        enter(PAIL, lambda: served(PAIL, pail(stack, setting), load(setting), setting))
        enter(TLS, lambda: served(TLS, pail(stack, setting, tls=True), load(setting, scheme="https"), setting))

    return lanes


def one_each(stack, setting, enter):
    unary(get, 50, 1)(stack, setting, enter)
    enter(REDIS, lambda: redis(stack, setting, RedisBenchmark(50, 1, VALUE_BYTES)))


def against_etcd(ours, theirs):
    def lanes(stack, setting, enter):
        enter(PAIL, lambda: served(PAIL, pail(stack, setting), ours(setting, 8, 100), setting))
        enter(ETCD, lambda: served(ETCD, etcd(stack, setting), theirs(setting, 8, 100), setting))

    return lanes


def pipelined(stack, setting, enter):
    """Requests of a hundred messages, with a hundred operations each."""
    key, count = f"{KEY}{VALUE_BYTES}", PACKED * PACKS
    request = body(setting, "pipeline-get", m.pipeline(m.GET, [m.get(BUCKET, key)] * count, PACKED))
    answer = get_answer(key, VALUE_BYTES, 1)
    results = sum(len(m.field(1, m.field(1, number) + m.field(m.GET, answer))) for number in range(1, count + 1))
    # How many messages they come in is the server's affair: up to ten for one of ours.
    sizes = (results + 5, results + 5 * 10 * PACKS)
    load = H2Load(SERVICE + "Pipeline", request, 4, 1, sizes, requests_least=8)
    enter(PAIL, lambda: served(PAIL, pail(stack, setting), load, setting, ops=count))
    enter(REDIS, lambda: redis(stack, setting, RedisBenchmark(4, PACKED, VALUE_BYTES)))


def values(stack, setting, enter):
    sizes = (64, 512, 4096)
    server = pail(stack, setting, sizes)
    for size in sizes:
        name = f"{size} bytes"
        enter(name, partial(served, name, server, get(setting, 8, 100, size), setting))
