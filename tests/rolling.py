#!/usr/bin/env python3
"""pail is restarted again and again, behind a real nginx, haproxy and Caddy, and those who work with it go on.

    tests/rolling.py target/release/pail [--require]

The work is that of tests/go/rolling, with the retry policy of clients/. With --require it fails where a proxy or Go is missing.
"""

import contextlib
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import proxies
from world import Running, Server, Wrong, end_as_told, free_ports, has, pail_to_test, run_beside_each_other

ROOT = Path(__file__).resolve().parent.parent
RESTARTS, EVERY_S = 4, 3

# No flush_interval of -1: it has Caddy send the headers of an answer by themselves, also where they are all of it, as those of a refusal
# are; and gRPC takes an answer without trailers for one that was cut off.
CADDY = "{{\n    admin off\n    auto_https off\n    storage file_system {directory}/caddy\n    servers {{\n        protocols h1 h2 h2c\n    }}\n}}\n{servers}\n"
CADDY_SERVER = "http://{front} {{\n    reverse_proxy h2c://{back}\n}}"


def through(name, pail, load, directory):
    """Restarts the server behind a proxy while there is work, and says what the work was like."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.ExitStack())
        first = server.enter_context(Server(pail, listen=address))
        front = address if name == "nothing" else stack.enter_context(proxies.Proxy(name, {"pail": first}, directory)).fronts["pail"]
        seconds = (RESTARTS + 1) * EVERY_S
        work = stack.enter_context(Running([load, front, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        for _ in range(RESTARTS):
            time.sleep(EVERY_S)  # it works
            server.close()
            server.enter_context(Server(pail, listen=address))
        said, _ = work.process.communicate(timeout=60)
        if work.process.returncode != 0:
            raise Wrong(said)
    return said.strip()


def main():
    pail = pail_to_test(__doc__, has("nginx", "haproxy", "caddy", "go"))
    proxies.PROXIES["caddy"] = (["caddy", "run", "--adapter", "caddyfile", "--config"], CADDY, CADDY_SERVER)
    if not (ROOT / "clients/go/pailv1").is_dir():
        subprocess.run([ROOT / "clients/go/build"], check=True)
    load = ROOT / "target/rolling"
    subprocess.run(["go", "build", "-o", load, "./rolling"], cwd=ROOT / "tests/go", check=True)
    # Nobody's work is to wait for another proxy's.
    proxies.IDLE_S = 60
    with tempfile.TemporaryDirectory(prefix="pail-rolling-", ignore_cleanup_errors=True) as directory:
        names = ("nothing", "nginx", "haproxy", "caddy")
        wrong = run_beside_each_other([(f"{RESTARTS} restarts behind {name}", partial(through, name, pail, load, directory)) for name in names])
    if wrong:
        raise Wrong(f"{wrong} went wrong")


if __name__ == "__main__":
    end_as_told(main)
