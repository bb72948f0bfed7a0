#!/usr/bin/env python3
"""Watches and Links through a real nginx and a real haproxy, with every idle time-out of theirs at 3 s.

    tests/proxies.py target/release/pail [--require]

Streams on which pail speaks each second outlive the time-outs; streams on which it speaks less often are cut, which shows
that the time-outs are at work. A client that dies or freezes behind a proxy takes its bucket with it, and a drain is heard
through both. All of that happens at once, in some two minutes.

What is true is asked of the server directly. With --require it fails where nginx, haproxy or grpcurl is missing.
"""

import contextlib
import signal
import socket
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from world import Link, Listener, Running, Server, Watch, Wrong
from world import end_as_told, free_ports, has, pail_to_test, require, run_beside_each_other, until

IDLE_S = 3
# Ten time-outs would be promise enough; two minutes are what a Watch is used for.
QUIET_S = 40 * IDLE_S
# A stream that is cut by a time-out is cut by then: haproxy may take the time-outs of both sides, one after the other.
CUT_S = 3 * IDLE_S
# From the death of a client to the DOWN, where the proxy passes it on.
AT_ONCE_S = 1
LEASE_S = 2

# Debian's nginx, 1.22, knows no `http2 on`.
NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    grpc_read_timeout {idle_s}s;
    grpc_send_timeout {idle_s}s;
    client_body_timeout {idle_s}s;
    send_timeout {idle_s}s;
    keepalive_timeout {idle_s}s;
    {servers}
}}
"""
NGINX_SERVER = "server {{ listen {front} http2; location / {{ grpc_pass grpc://{back}; }} }}"

HAPROXY = """
defaults
    mode http
    timeout connect 1s
    timeout client {idle_s}s
    timeout server {idle_s}s
{servers}
"""
HAPROXY_SERVER = "listen {front}\n    bind {front} proto h2\n    server pail {back} proto h2"


# How each is started, and its configuration: as a whole, and for one server.
PROXIES = {
    "nginx": (["nginx", "-e", "stderr", "-c"], NGINX, NGINX_SERVER),
    "haproxy": (["haproxy", "-f"], HAPROXY, HAPROXY_SERVER),
}


class Proxy(Running):
    """A proxy in front of some servers; `fronts` are its addresses, by the servers' names."""

    def __init__(self, name, servers, directory):
        self.name = name
        command, whole, each = PROXIES[name]
        self.fronts = {which: f"127.0.0.1:{port}" for which, port in zip(servers, free_ports(len(servers)))}
        text = "\n".join(each.format(front=self.fronts[which], back=servers[which].address) for which in servers)
        configuration = Path(directory, f"{name}.conf")
        configuration.write_text(whole.format(directory=directory, idle_s=IDLE_S, servers=text))
        self.log = Path(directory, f"{name}.log")
        with self.log.open("w") as log:
            super().__init__([*command, configuration], stdout=log, stderr=subprocess.STDOUT)
        for front in self.fronts.values():
            until(lambda: self.accepts(front), f"{name} listens on {front}")

    def accepts(self, front):
        if self.process.poll() is not None:
            raise Wrong(f"{self.name} ended: {self.log.read_text()}")
        host, port = front.split(":")
        with socket.socket() as attempt:
            return attempt.connect_ex((host, int(port))) == 0

    def __exit__(self, *_):
        # Both have processes under them, which end on this signal, and not where the parent is killed.
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        super().__exit__()


def pail_watch(server, front, *words):
    """`pail watch` through a proxy."""
    command = [server.pail, "watch", *words, "--output", "json"]
    return Listener(command, stdin=subprocess.DEVNULL, env=server.env | {"PAIL_ADDR": front})


def an_idle_watch_is_still_there(proxy, server, front):
    """And tells of the DOWN that comes in the end."""
    bucket = f"watched-through-{proxy.name}"
    server.do("create", bucket)
    with pail_watch(server, front, bucket, "--heartbeat", "1s") as watch:
        time.sleep(QUIET_S)
        heartbeats = watch.count("heartbeat")
        require(watch.process.poll() is None, f"it was cut: {watch.errors}")
        stopped = time.monotonic()
        server.do("stop", bucket, "--reason", "killed")
        at, down = watch.first(lambda message: "down" in message, "DOWN")
        code, errors = watch.end()
    require(code == 0 and "KILLED" in str(down), f"{code} {down} {errors}")
    require(heartbeats > QUIET_S / 2, f"{heartbeats} heartbeats")
    return f"idle for {QUIET_S} s, {heartbeats} heartbeats, then a DOWN within {max(at - stopped, 0):.3f} s"


def a_watch_without_heartbeats_is_cut(proxy, server, front):
    bucket = f"cut-through-{proxy.name}"
    server.do("create", bucket)
    begun = time.monotonic()
    with pail_watch(server, front, bucket, "--heartbeat", "1m") as watch:
        code, errors = watch.end(CUT_S)
    took = time.monotonic() - begun
    require(code == 3 and took > IDLE_S - 0.5, f"{code} after {took:.1f} s: {errors}")
    return f"after {took:.1f} s"


def a_quiet_link_outlives_ten_time_outs(proxy, server, front):
    bucket = f"quiet-through-{proxy.name}"
    with Link(front, bucket) as link:
        time.sleep(QUIET_S)
        heartbeats = link.count("heartbeat")
        require(server.has(bucket), f"it was cut: {link.errors}")
        link.ping(2)
        # The end is a good-bye, and no cut.
        link.half_close()
        code, errors = link.end()
    require(code == 0 and server.has(bucket), f"{code} {errors}")
    require(heartbeats > QUIET_S / 2, f"{heartbeats} heartbeats")
    return f"quiet for {QUIET_S} s, {heartbeats} heartbeats"


def a_quiet_link_with_few_heartbeats_is_cut(proxy, server, front):
    bucket = f"cut-link-through-{proxy.name}"
    with Watch(server.address, {"buckets": [bucket], "follow": True}) as witness, Link(front, bucket):
        begun = time.monotonic()
        at, reason, _ = witness.down(bucket, CUT_S)
    require(reason == "REASON_NOCONNECTION" and at - begun > IDLE_S - 0.5, f"{reason} after {at - begun:.1f} s")
    return f"NOCONNECTION after {at - begun:.1f} s"


def a_killed_client_takes_its_bucket_down(proxy, server, front):
    bucket = f"killed-behind-{proxy.name}"
    with Watch(server.address, {"buckets": [bucket], "follow": True}) as witness, Link(front, bucket) as link:
        killed = time.monotonic()
        link.signal(signal.SIGKILL)
        at, reason, _ = witness.down(bucket)
    require(reason == "REASON_NOCONNECTION" and at - killed < AT_ONCE_S, f"{reason} after {at - killed:.3f} s")
    return f"NOCONNECTION after {at - killed:.3f} s, without a lease"


def a_frozen_client_takes_its_bucket_down_within_its_lease(proxy, server, front):
    """Neither the proxy nor TCP can tell it from a quiet one: its kernel acknowledges what the proxy sends."""
    bucket = f"frozen-behind-{proxy.name}"
    follow = {"buckets": [bucket], "follow": True}
    with Watch(server.address, follow) as witness, Link(front, bucket, lease=f"{LEASE_S}s") as link:
        # Twice its lease, which its pings renew.
        for number in range(2, 2 + 4 * LEASE_S):
            link.ping(number)
            time.sleep(0.5)
        require(server.has(bucket), "it was gone before its client was frozen")
        link.ping(1_000)
        frozen = time.monotonic()
        link.signal(signal.SIGSTOP)
        at, reason, detail = witness.down(bucket)
    took = at - frozen
    require(reason == "REASON_NOCONNECTION" and "lease" in detail, f"{reason} {detail}")
    require(LEASE_S - 0.5 < took < LEASE_S + AT_ONCE_S, f"after {took:.3f} s, with a lease of {LEASE_S} s")
    return f"NOCONNECTION after {took:.3f} s, with a lease of {LEASE_S} s"


def a_drain_is_heard(proxies, server):
    """DOWN and draining, or moving; and then UNAVAILABLE, through each, and no later than the server ends."""
    with contextlib.ExitStack() as stack:
        streams = []
        for proxy in proxies:
            bucket, front = f"drained-behind-{proxy.name}", proxy.fronts["drained"]
            link = stack.enter_context(Link(front, bucket))
            watch = stack.enter_context(Watch(front, {"buckets": [bucket], "follow": True, "heartbeat": "1s"}))
            streams.append((bucket, link, watch))
        server.signal(signal.SIGTERM)
        begun = time.monotonic()
        for bucket, link, watch in streams:
            _, reason, _ = watch.down(bucket)
            require(reason == "REASON_SHUTDOWN", reason)
            watch.first(lambda message: "draining" in message, "draining")
            link.first(lambda message: "moving" in message, "moving")
            link.half_close()  # for grpcurl to look at the stream again
            for stream in (watch, link):
                code, errors = stream.end()
                require(code and "Unavailable" in errors and "DRAINING" in errors, f"{code} {errors}")
        code = server.wait()
    require(code == 0, f"the server ended with {code}")
    return f"within {time.monotonic() - begun:.1f} s"


EACH = [
    # How often its server speaks on a Link does not matter to the others.
    ("an idle Watch is still there", an_idle_watch_is_still_there, "each second"),
    ("a Watch without heartbeats is cut", a_watch_without_heartbeats_is_cut, "each second"),
    ("a quiet Link outlives ten time-outs", a_quiet_link_outlives_ten_time_outs, "each second"),
    ("a quiet Link with few heartbeats is cut", a_quiet_link_with_few_heartbeats_is_cut, "by default"),
    ("a killed client takes its bucket down", a_killed_client_takes_its_bucket_down, "each second"),
    ("a frozen one does within its lease", a_frozen_client_takes_its_bucket_down_within_its_lease, "each second"),
]


def main():
    pail = pail_to_test(__doc__, has("nginx", "haproxy", "grpcurl"))
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pail-proxies-"))
        servers = {
            "each second": stack.enter_context(Server(pail, "--link-heartbeat", "1s")),
            "by default": stack.enter_context(Server(pail)),
            "drained": stack.enter_context(Server(pail, "--link-heartbeat", "1s")),
        }
        proxies = [stack.enter_context(Proxy(name, servers, directory)) for name in PROXIES]
        cases = [("a drain is heard through both", partial(a_drain_is_heard, proxies, servers["drained"]))]
        for proxy in proxies:
            for name, case, which in EACH:
                work = partial(case, proxy, servers[which], proxy.fronts[which])
                cases.append((f"{proxy.name}: {name}", work))
        wrong = run_beside_each_other(cases)
    print(f"{len(cases)} cases with nginx and haproxy, and {wrong} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    end_as_told(main)
