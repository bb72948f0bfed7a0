"""The rows: each a promise about a load, and what it is held against."""

from latency import at_half_of_saturation
from many import ELIXIR, creates, downs, empty_buckets, fan_out, idle_watches, in_process, one_and_a_million
from race import BYTES, CPU, P99, RATE, Row, at_least, at_most
from unary import ETCD, PAIL, REDIS, STOCK, TLS
from unary import against_etcd, by_tls, etcd_get, etcd_put, get, get_anew, one_each, pipelined, put, unary, values

ROWS = [
    Row(
        "get",
        "Get, 8 connections × 100 streams",
        unary(get, 8, 100),
        [at_most(0.55, CPU, PAIL, STOCK), at_least(1.8, RATE, PAIL, STOCK)],
    ),
    Row(
        "put",
        "Put, 8 connections × 100 streams",
        unary(put, 8, 100),
        [at_most(0.60, CPU, PAIL, STOCK), at_least(1.8, RATE, PAIL, STOCK)],
    ),
    Row(
        "get-50",
        "Get, 50 connections, one request each",
        one_each,
        [at_least(1.1, RATE, PAIL, STOCK), at_least(1.0, RATE, PAIL, REDIS)],
    ),
    Row(
        "latency",
        "Get at half of saturation, in an open loop, 8 × 100",
        at_half_of_saturation,
        [at_most(1.0, P99, PAIL, STOCK)],
    ),
    Row(
        "etcd-get",
        "Get and etcd's serializable Range, 8 × 100",
        against_etcd(get, etcd_get),
        [at_least(5, RATE, PAIL, ETCD)],
    ),
    Row(
        "etcd-put",
        "Put and etcd's Put, 8 × 100",
        against_etcd(put, etcd_put),
        [at_least(8, RATE, PAIL, ETCD)],
    ),
    Row(
        "pipeline-get",
        "Get by Pipeline and Redis's GET, 4 connections, 100 operations a message",
        pipelined,
        [at_least(1.3, RATE, PAIL, REDIS)],
    ),
    Row("create", "Create by Pipeline, and in Elixir's machine", creates, [at_least(5, RATE, PAIL, ELIXIR)]),
    Row(
        "lookup-get",
        "Lookup and Get by name in process, one caller",
        in_process("by name/get/pail", "lookup-get"),
        [at_least(25, RATE, PAIL, ELIXIR)],
    ),
    Row("memory", "Memory of an empty bucket with a name of 16 bytes", empty_buckets, [at_most(300, BYTES, PAIL)]),
    Row("watch-memory", "Memory of an idle Watch stream", idle_watches, [at_most(6 << 10, BYTES, PAIL)]),
    Row(
        "down",
        "Kill and DOWN of 200,000 in process",
        in_process("kill and DOWN of 200,000/pail", "down", ops=200_000),
        [at_least(40, RATE, PAIL, ELIXIR)],
    ),
    Row(
        "down-grpc",
        "Kill and DOWN of 100,000 buckets to one Watch of a prefix",
        downs,
        [at_least(3, RATE, PAIL, ELIXIR)],
    ),
    Row("fan-out", "A Put to 10,000 watches on 100 connections", fan_out, [at_least(5, RATE, PAIL, ETCD)]),
    Row(
        "many",
        "Get from one of a million buckets of 10 entries, and from one alone",
        one_and_a_million,
        [at_most(1.2, CPU, "1,000,000 buckets", "1 bucket")],
    ),
    Row(
        "values",
        "Get of 64, 512 and 4,096 bytes, 8 × 100",
        values,
        [at_most(1.3, CPU, "512 bytes", "64 bytes")],
    ),
    Row("tls", "Get in the clear and by TLS 1.3, 8 × 100", by_tls(get), [at_most(1.3, CPU, TLS, PAIL)]),
    Row(
        "tls-connect",
        "A connection and a Get, in the clear and by TLS 1.3",
        by_tls(get_anew),
        [at_most(5, CPU, TLS, PAIL)],
    ),
]
