"""What the scripts beside this file have in common: a real server, the clients that speak to it, and waits that end.

A process that is started here is ended by the `with` that started it, on every way out, and nothing else is ever ended.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

DEADLINE_S = 30
PROTO = Path(__file__).resolve().parent.parent / "proto"


class Wrong(Exception):
    """Something is not as it was promised."""


class Running:
    """A process with a thread that reads what it prints; the process is killed at the end of the `with`."""

    def __init__(self, command, **options):
        self.command = [str(word) for word in command]
        # Not the terminal's Ctrl-C: who started it ends it.
        self.process = subprocess.Popen(self.command, text=True, start_new_session=True, **options)

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, within_s=DEADLINE_S):
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise Wrong(f"not over after {within_s} s: {self.command}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Server(Running):
    """`pail serve` on a free port, for as long as a `with` lasts; then it has to drain, and to end with 0."""

    def __init__(self, pail, *options, listen="127.0.0.1:0"):
        self.log = []
        # What the caller's environment says of pail is not the tests', but for a bug that they are to find.
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("PAIL_") or name == "PAIL_PLANT"}
        command = [pail, "serve", "--listen", listen, "--log-format", "json", *options]
        super().__init__(command, stderr=subprocess.PIPE, env=self.env)
        self.pail = pail
        self.address = next(filter(None, map(self.listening, self.process.stderr)), None)
        if self.address is None:
            raise Wrong("the server did not start:\n" + "".join(self.log))
        # Somebody has to read the log, or the server would wait for it.
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        self.env |= {"PAIL_ADDR": self.address, "LC_ALL": "C.UTF-8"}

    def listening(self, line):
        self.log.append(line)
        fields = json.loads(line)["fields"] if line.startswith("{") else {}
        return fields.get("address") if fields.get("message") == "listening" else None

    def ask(self, *words):
        """Runs a command of the client's, and returns its exit code and all that it printed."""
        everything = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run([self.pail, *words], env=self.env, timeout=DEADLINE_S, check=False, **everything)
        return done.returncode, done.stdout

    def do(self, *words):
        code, output = self.ask(*words)
        if code:
            raise Wrong(f"pail {' '.join(words)} ended with {code}: {output}")

    def has(self, bucket):
        code, output = self.ask("lookup", bucket)
        if code > 1:
            raise Wrong(f"no answer from the server: {output}")
        return code == 0

    def __exit__(self, *_):
        self.process.terminate()
        try:
            code = self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Wrong("the server did not end") from None
        if code != 0:
            raise Wrong(f"the server ended with {code}:\n" + "".join(self.log))


class Listener(Running):
    """A client that prints JSON, one value after the other, whatever the line breaks."""

    def __init__(self, command, **options):
        super().__init__(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        # What came, and when; guarded by `changed`, as are the two below.
        self.messages, self.errors, self.is_over = [], "", False
        self.changed = threading.Condition()
        self.readers = [threading.Thread(target=read, daemon=True) for read in (self.read, self.read_errors)]
        for reader in reversed(self.readers):
            reader.start()

    def read(self):
        text, decoder = "", json.JSONDecoder()
        for line in self.process.stdout:
            text = (text + line).lstrip()
            try:
                message, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                continue
            text = text[end:]
            with self.changed:
                self.messages.append((time.monotonic(), message))
                self.changed.notify_all()
        # Who hears that it is over is to know why.
        self.readers[1].join()
        with self.changed:
            self.is_over = True
            self.changed.notify_all()

    def read_errors(self):
        for line in self.process.stderr:
            with self.changed:
                self.errors += line

    def first(self, is_it, what, within_s=DEADLINE_S):
        """The first message that is it, past ones included, and when it came."""
        found = None

        def look():
            nonlocal found
            found = next(((at, message) for at, message in self.messages if is_it(message)), None)
            return found or self.is_over

        with self.changed:
            self.changed.wait_for(look, within_s)
        if found is None:
            raise Wrong(f"no {what} within {within_s} s from {self.command}: {self.messages} {self.errors}")
        return found

    def count(self, key):
        with self.changed:
            return sum(key in message for _, message in self.messages)

    def end(self, within_s=DEADLINE_S):
        """Waits for its own end: its exit code, and what it said of it."""
        code = self.wait(within_s)
        for reader in self.readers:
            reader.join(DEADLINE_S)
        return code, self.errors


def grpcurl(address, method, request):
    """The command for one call; a request of `@` comes from standard input."""
    schema = ["-import-path", PROTO, "-proto", "pail/v1/pail.proto", "-proto", "google/rpc/error_details.proto"]
    data = request if request == "@" else json.dumps(request)
    return ["grpcurl", "-plaintext", *schema, "-d", data, address, f"pail.v1.BucketService/{method}"]


class Watch(Listener):
    """A Watch by grpcurl, which has begun."""

    def __init__(self, address, request, within=()):
        super().__init__([*within, *grpcurl(address, "Watch", request)], stdin=subprocess.DEVNULL)
        self.first(lambda message: "synced" in message, "synced")

    def down(self, bucket, within_s=DEADLINE_S):
        """When a life of this bucket was seen to end, with which reason and detail. That it was not there is no end."""

        def ends(message):
            downs = [event.get("down", {}) for event in message.get("events", {}).get("events", [])]
            return [down for down in downs if down.get("bucket") == bucket and down["reason"] != "REASON_NOPROC"]

        at, message = self.first(ends, f"DOWN of {bucket}", within_s)
        [down] = ends(message)
        return at, down["reason"], down.get("detail", "")


class Link(Listener):
    """A client that holds a bucket by a Link of its own, by grpcurl. It says nothing that it is not told to say.

    A grpcurl whose stream was cut does not notice before it has something to send: ask others whether the link holds.
    """

    def __init__(self, address, bucket, lease=None, within=()):
        super().__init__([*within, *grpcurl(address, "Link", "@")], stdin=subprocess.PIPE)
        if lease:
            self.send({"hello": {"lease": lease}})
        self.send({"id": "1", "link": {"bucket": bucket, "mode": "LINK_MODE_MUST_CREATE"}})
        self.first(lambda message: "linked" in message, "linked")

    def send(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def ping(self, number):
        """Sends a ping, and waits for its answer."""
        self.send({"id": str(number), "ping": {}})
        self.first(lambda message: "pong" in message and message["id"] == str(number), "pong")

    def half_close(self):
        self.process.stdin.close()

    def __exit__(self, *_):
        # It may have been stopped, and it may have died of what it was to send.
        super().__exit__()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass


def until(is_so, what, within_s=DEADLINE_S):
    """Asks again and again, for what has no event to wait for."""
    end = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > end:
            raise Wrong(f"not within {within_s} s: {what}")
        time.sleep(0.05)


def descriptors(pid):
    """How many a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss_bytes(pid):
    """The resident memory of a process."""
    [kib] = re.findall(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.M)
    return int(kib) * 1024


def require(is_so, what):
    if not is_so:
        raise Wrong(what)


def free_ports(count):
    """Ports that nobody listens on, for programs that cannot tell which one they took."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def run_beside_each_other(cases):
    """Runs named cases at once. Each returns what it measured, or raises what is wrong. Returns how many went wrong."""
    wrong = 0
    with ThreadPoolExecutor(len(cases)) as pool:
        started = [(name, pool.submit(case)) for name, case in cases]
        for name, case in started:
            try:
                print(f"ok     {name}: {case.result()}", flush=True)
            except Exception as words:  # one that fails must not hide the others
                wrong += 1
                print(f"WRONG  {name}: {words!r}", flush=True)
    return wrong


def pail_to_test(documentation, is_there):
    """The binary, from the command line. Ends here where something that is needed is not there, and says so."""
    arguments = argparse.ArgumentParser(description=documentation.split("\n")[0])
    arguments.add_argument("pail", type=Path, help="the binary, such as target/release/pail")
    arguments.add_argument("--require", action="store_true", help=f"fail where {', '.join(is_there)} is missing")
    arguments = arguments.parse_args()
    pail = arguments.pail.resolve()
    if pail.name != "pail" or not pail.is_file():
        sys.exit(f"{arguments.pail} is no pail: build it first")
    missing = [what for what, is_so in is_there.items() if not is_so]
    if missing:
        print(f"NOT RUN, for want of {' and '.join(missing)}: {sys.argv[0]}")
        sys.exit(1 if arguments.require else 0)
    return pail


def has(*tools):
    """Which of these programs are there. Debian has some where not everybody's path leads."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    return {tool: shutil.which(tool) is not None for tool in tools}


def end_as_told(main):
    """Runs `main`; SIGTERM ends it by the same way out as an error, so that what it started is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    try:
        sys.exit(main())
    except Wrong as words:
        sys.exit(str(words))
