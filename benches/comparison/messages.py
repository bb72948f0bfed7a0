"""gRPC messages by hand: the few that are sent, so nothing has to be generated, and all get the same bytes."""


def varint(number):
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def field(number, content):
    """One field: a text, bytes (of a message, too), a number, or a flag."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    octets = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(octets)) + octets


def framed(*messages):
    """As gRPC sends them: uncompressed, each behind its length."""
    return b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)


# pail's, by the numbers of proto/pail/v1/pail.proto.


def text(value):
    return field(1, value)


def create(bucket):
    return field(1, bucket)


def get(bucket, key):
    return field(1, bucket) + field(3, key)


def put(bucket, key, value):
    return field(1, bucket) + field(3, key) + field(4, text(value))


def stop(bucket):
    return field(1, bucket) + field(3, 3)  # KILLED


def transact_puts(pairs):
    """A transaction without its bucket, which is a field of its own."""
    return b"".join(field(4, field(1, field(1, key) + field(2, text(value)))) for key, value in pairs)


def watch_entries(bucket, key):
    """Each Put of this key from now on."""
    return field(1, bucket) + field(4, True) + field(5, key) + field(7, 3) + field(8, True)


def watch_downs(prefix):
    return field(3, prefix) + field(7, 2) + field(8, True)


def watch_bucket(bucket):
    return field(1, bucket)


CREATE, STOP, GET, TRANSACT = 3, 6, 8, 13


def pipeline(kind, requests, ops_per_message):
    """The whole of what a client sends on one Pipeline stream, ready for the wire."""
    ops = [field(1, field(1, number) + field(kind, request)) for number, request in enumerate(requests, 1)]
    packs = range(0, len(ops), ops_per_message)
    return framed(*(b"".join(ops[at : at + ops_per_message]) for at in packs))


# etcd's.


def etcd_range(key):
    return field(1, key) + field(7, True)  # serializable: from the memory of the one who is asked


def etcd_put(key, value):
    return field(1, key) + field(2, value)


def etcd_watch(key):
    return field(1, field(1, key))
