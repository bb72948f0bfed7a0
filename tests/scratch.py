#!/usr/bin/env python3
"""A static binary, alone in its root and as nobody: what deploy/Containerfile puts into an image.

    tests/scratch.py target/static/x86_64-unknown-linux-gnu/quick/pail [--require]

With --require it fails where root is missing.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from world import Running, end_as_told, has, pail_to_test, require, until

NOBODY = "65532:65532"


def main():
    pail = pail_to_test(__doc__, {"root": os.geteuid() == 0} | has("chroot"))
    with tempfile.TemporaryDirectory() as root:
        shutil.copy(pail, root)
        os.chmod(root, 0o555)
        alone = [shutil.which("chroot"), f"--userspec={NOBODY}", root, "/pail"]
        with Running([*alone, "serve", "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE, env={}) as server:
            address = server.process.stderr.readline().strip().rpartition("address=")[2]

            def asked(*words):
                return subprocess.run([*alone, *words, "--addr", address], env={}, capture_output=True, text=True, check=False)

            until(lambda: asked("list").returncode == 0, "an answer")
            require(asked("create", "bucket").returncode == 0, "nothing can be created")
            require(Path(f"/proc/{server.pid}/root").resolve() == Path(root).resolve(), "it has more than its root")
            status = Path(f"/proc/{server.pid}/status").read_text()
            require("Uid:\t65532\t" in status, status)
            server.signal(signal.SIGTERM)
            require(server.wait() == 0, "it did not drain")
    print("it serves, with nothing but itself")


if __name__ == "__main__":
    end_as_told(main)
