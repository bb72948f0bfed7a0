#!/usr/bin/env python3
"""`pail top` in a terminal: what it shows, the keys, and that it gives the screen back.

    tests/top.py target/release/pail
"""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import threading

from world import DEADLINE_S, Server, Wrong, end_as_told, free_ports, pail_to_test, until

ROWS, COLUMNS = 40, 180
LEAVES = "\x1b[?1049l"


class Terminal:
    """A program with a terminal of its own; all that it writes there."""

    def __init__(self, command, env):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, env | {"TERM": "xterm-256color"})
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.written = ""
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while True:
            try:
                if select.select([self.master], [], [], 1)[0]:
                    self.written += os.read(self.master, 1 << 16).decode(errors="replace")
            except OSError:
                return

    def shows(self, text):
        # Only what has changed is written, and moves between it.
        return text in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", self.written) or text in self.written

    def press(self, keys):
        os.write(self.master, keys)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def ended(self):
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.code = os.waitstatus_to_exitcode(status)
        return pid != 0


def main():
    pail = pail_to_test(__doc__, {})
    admin = f"127.0.0.1:{free_ports(1)[0]}"
    with Server(pail, "--admin", admin) as server:
        for number in range(3):
            server.do("create", f"shop/{number}")
        command = [str(pail), "top", "--admin", f"http://{admin}", "--every", "200ms"]
        with Terminal(command, server.env) as terminal:
            for text in ("pail", "shop/2", "limits", "live"):
                until(lambda: terminal.shows(text), f"{text} on the screen")
            server.do("stop", "shop/1", "--reason", "killed", "--detail", "sold-out")
            until(lambda: terminal.shows("KILLED") and terminal.shows("sold-out"), "the death on the screen")
            terminal.press(b"np")
            terminal.press(b"q")
            until(terminal.ended, "its end", DEADLINE_S)
            if terminal.code != 0:
                raise Wrong(f"it ended with {terminal.code}")
            until(lambda: LEAVES in terminal.written, "the screen is given back")
        code, said = server.ask("top", "--admin", "http://127.0.0.1:1")
        if code != 3 or "pail serve --admin" not in said or "\x1b" in said:
            raise Wrong(f"without the port it ended with {code}: {said!r}")
    print("pail top shows what lives and what dies, hears keys, and gives the screen back")


if __name__ == "__main__":
    end_as_told(main)
