"""A channel to pail: it retries what may be retried, finds out that a connection is dead, and comes back soon."""

from pathlib import Path

import grpc.aio

SERVICE_CONFIG = Path(__file__).resolve().parent.parent / "service_config.json"


def connect(address, *options):
    """A channel to HOST:PORT. Further gRPC options may follow."""
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.service_config", SERVICE_CONFIG.read_text()),
            # A ping after 10 s of silence, 5 s for its answer. gRPC 1.85 waits a minute unless both timeouts are set.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.http2.ping_timeout_ms", 5_000),
            # Also on a stream on which only the server sends; by default two such pings are allowed.
            ("grpc.http2.max_pings_without_data", 0),
            # Left to itself, a channel waits up to two minutes before it tries again.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            *options,
        ],
    )
