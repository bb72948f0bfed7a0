#!/usr/bin/env python3
"""Runs the sessions of README.md against a real server, and compares what comes out, word for word.

    tests/readme.py target/release/pail [--require-grpcurl]

A session is a fenced block marked `console`. A line that begins with `$ ` is a command, lines with `> ` right after it go
on with it, and what follows up to the next command is what it must print, errors included. A block is one bash; all blocks
run in their order on one server, which is started here, fresh, on a free port. In the commands 127.0.0.1:4040 stands for
its address. A block marked `console beside` is the other terminal: it has one command, which is left running once it has
printed its first line, and must be over, by itself, soon after the block that follows it.

What differs from run to run is compared by kind and by place: in README and in the output alike, the first id of a block
becomes <id 1>, another one <id 2>, and the first again <id 1>. So equal ids must be equal, and nothing else is forgiven.

Before anything else the runner checks itself: with sessions that are right, and with some that are wrong.
"""

import argparse
import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import world
from world import DEADLINE_S, Wrong

README = Path(__file__).resolve().parent.parent / "README.md"
ADDRESS = "127.0.0.1:4040"
MARK = "--- the command is over ---"

# What differs from run to run. Ids and revisions are microseconds since 1970: 16 digits.
VARYING = re.compile(
    r'(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)|(?P<registry>\b[0-9a-f]{32}\b)|(?P<id>\b\d{16}\b)'
    r'|(?<="ref": ")(?P<ref>\d+)'
)


@dataclass
class Session:
    line: int
    is_beside: bool
    commands: list = field(default_factory=list)
    expected: list = field(default_factory=list)

    def text(self):
        """As README shows it, from the commands and what each printed."""
        return transcript(self.commands, self.expected)

    def needs(self, tool):
        return any(re.search(rf"\b{tool}\b", command) for command in self.commands)


def transcript(commands, outputs):
    lines = []
    for command, output in zip(commands, outputs):
        first, *rest = command.split("\n")
        lines += [f"$ {first}", *(f"> {line}" for line in rest), *output]
    return lines


def sessions(markdown):
    found, current = [], None
    for number, line in enumerate(markdown.split("\n"), start=1):
        if current is None:
            if mark := re.fullmatch(r"```console( beside)?", line):
                current = Session(number, bool(mark[1]))
        elif line == "```":
            found.append(current)
            current = None
        elif line.startswith("$ "):
            current.commands.append(line[2:])
            current.expected.append([])
        elif line.startswith("> ") and current.commands and not current.expected[-1]:
            current.commands[-1] += "\n" + line[2:]
        elif current.commands:
            current.expected[-1].append(line)
        else:
            raise Wrong(f"line {number}: a session begins with a command")
    if current is not None:
        raise Wrong(f"line {current.line}: the block has no end")
    for session in found:
        if not session.commands or (session.is_beside and len(session.commands) > 1):
            raise Wrong(f"line {session.line}: a session has commands, and one beside another has one")
    return found


def normalised(lines):
    seen = {}

    def token(match):
        kind = match.lastgroup
        same_kind = seen.setdefault(kind, [])
        if match[0] not in same_kind:
            same_kind.append(match[0])
        return f"<{kind} {same_kind.index(match[0]) + 1}>"

    return VARYING.sub(token, "\n".join(lines)).split("\n")


def compare(session, outputs):
    expected, actual = normalised(session.text()), normalised(transcript(session.commands, outputs))
    if expected != actual:
        diff = difflib.unified_diff(expected, actual, "README.md", "what came out", lineterm="")
        raise Wrong(f"line {session.line}: this came out otherwise\n" + "\n".join(diff))


class Server(world.Server):
    """A server, and a shell that finds it."""

    def __init__(self, pail):
        super().__init__(pail)
        self.env |= {"PATH": f"{Path(pail).parent}:{os.environ['PATH']}"}

    def bash(self, script, cwd):
        script = script.replace(ADDRESS, self.address)
        return subprocess.Popen(
            ["bash", "-c", script],
            cwd=cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def lines(self, output):
        return output.replace(self.address, ADDRESS).split("\n")[:-1] if output else []


def kill(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(session, server, cwd):
    # The mark keeps the exit code, for a `$ echo $?` that follows.
    mark = f"__code=$?; printf '%s\\n' '{MARK}'; (exit $__code)"
    process = server.bash("\n".join(f"{command}\n{mark}" for command in session.commands), cwd)
    try:
        output, _ = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        raise Wrong(f"line {session.line}: not over after {DEADLINE_S} s") from None
    finally:
        kill(process)
    # What has no newline at its end runs into the mark, and so differs from README.
    outputs = [[]]
    for line in server.lines(output):
        outputs.append([]) if line == MARK else outputs[-1].append(line)
    compare(session, outputs)


class Beside:
    """The other terminal."""

    def __init__(self, session, server, cwd):
        self.session, self.server = session, server
        self.process = server.bash(session.commands[0], cwd)
        self.output, self.spoke = [], threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if not self.spoke.wait(DEADLINE_S):
            kill(self.process)
            raise Wrong(f"line {session.line}: nothing printed within {DEADLINE_S} s")

    def read(self):
        for line in self.process.stdout:
            self.output.append(line)
            self.spoke.set()
        self.spoke.set()

    def finish(self):
        self.reader.join(DEADLINE_S)
        is_over = not self.reader.is_alive()
        kill(self.process)
        self.reader.join()
        compare(self.session, [self.server.lines("".join(self.output))])
        if not is_over:
            raise Wrong(f"line {self.session.line}: not over {DEADLINE_S} s after the session that follows it")


def run_all(found, server):
    """Runs sessions in their order; what is wrong with each, in words."""
    wrong, beside = [], None

    def attempt(work, *arguments):
        try:
            return work(*arguments)
        except Wrong as words:
            wrong.append(str(words))

    with tempfile.TemporaryDirectory() as cwd:
        for session in found:
            if session.is_beside:
                beside = attempt(Beside, session, server, cwd)
            else:
                attempt(run, session, server, cwd)
                if beside:
                    attempt(beside.finish)
                beside = None
    if beside:
        kill(beside.process)
        wrong.append(f"line {beside.session.line}: no session follows that ends it")
    return wrong


def check_itself(server):
    """A runner that can't fail proves nothing."""
    a, b = "2025-11-25T02:38:48.1Z", "1764000000000001"
    life = f"""
```console beside
$ pail watch self-check --verbose
pail: watching registry 0123456789abcdef0123456789abcdef
pail: up to date
{a}\tDOWN\tself-check\t{b}\tKILLED\ttoo large
```
```console
$ pail stop self-check --reason killed --detail 'too large'
self-check\t{b}\tstopped
$ pail get self-check key
pail: no bucket "self-check" (BUCKET_NOT_FOUND)
$ echo $?
1
```"""
    create = f"```console\n$ pail create self-check\nself-check\t{b}\tcreated\n$ cat <<'END'\n> {ADDRESS}\n> END\n{ADDRESS}\n```\n"
    again = f"```console\n$ pail create self-check\nself-check\t{b}\texists\n$ pail create self-check\nself-check\t{b}\texists\n```"
    cases = [
        ("what is right", create + life, 0),
        ("a wrong word", (create + life).replace("KILLED", "NORMAL"), 1),
        ("a line too few", (create + life).replace("pail: up to date\n", ""), 1),
        ("a line too many", (create + life).replace("\tstopped", "\tstopped\nOK"), 1),
        ("a wrong exit code", (create + life).replace("\n1\n", "\n0\n"), 1),
        ("an id that is no id", (create + life).replace(b, "17640"), 3),
        ("what is right again", create + again + life, 0),
        ("two ids where there is one", create + again.replace(b, b[:-1] + "2", 1) + life, 1),
        ("nothing printed where something is", "```console\n$ true\nOK\n```", 1),
    ]
    for what, markdown, faults in cases:
        wrong = run_all(sessions(markdown), server)
        if len(wrong) != faults:
            raise Wrong(f"the runner is at fault: {what}: {faults} expected, found {len(wrong)}\n" + "\n".join(wrong))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("pail", type=Path, help="the binary, such as target/release/pail")
    arguments.add_argument("--require-grpcurl", action="store_true", help="fail where grpcurl is not on the path")
    arguments = arguments.parse_args()
    pail = arguments.pail.resolve()
    if pail.name != "pail" or not pail.is_file():
        sys.exit(f"{arguments.pail} is no pail: build it first")

    found = sessions(README.read_text())
    for tool in ["pail", "pail shell", "grpcurl"]:
        if not any(session.needs(tool) for session in found):
            sys.exit(f"README.md has no session with {tool}")
    skipped = []
    if shutil.which("grpcurl") is None:
        if arguments.require_grpcurl:
            sys.exit("grpcurl is not on the path, and --require-grpcurl was given")
        skipped = [session for session in found if session.needs("grpcurl")]

    with Server(pail) as server:
        check_itself(server)
    with Server(pail) as server:
        wrong = run_all([session for session in found if session not in skipped], server)
    for words in wrong:
        print(f"README.md, {words}\n")
    print(f"{len(found) - len(skipped)} sessions of README.md were run, and {len(wrong)} went wrong")
    for session in skipped:
        print(f"NOT RUN, for want of grpcurl: README.md, line {session.line}: $ {session.commands[0]}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    try:
        main()
    except Wrong as words:
        sys.exit(str(words))
