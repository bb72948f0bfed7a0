"""What a server takes: CPU time, memory, system calls. And which machine that was on."""

import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from world import DEADLINE_S, until

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    """User and system time of all its threads, those that have ended too."""
    # The name, in parentheses, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def settled(pid, quiet_s=1):
    """Waits until a process has taken no CPU time worth the name for a second."""

    def is_quiet():
        before = cpu_s(pid)
        time.sleep(quiet_s)
        return cpu_s(pid) - before < 0.02 * quiet_s

    until(is_quiet, f"process {pid} is at rest", 3 * DEADLINE_S)


COUNTER = ["perf", "stat", "--field-separator", ",", "--event", "raw_syscalls:sys_enter"]


def counts_syscalls():
    """Whether that can be done here: it takes root, and perf."""
    there = shutil.which("perf") is not None
    return there and subprocess.run([*COUNTER, "true"], capture_output=True, check=False).returncode == 0


def syscalls(pid, load):
    """How many system calls it makes while `load` runs a command behind these words. perf counts them, since strace
    makes a server so slow that more requests wait for each read, and fewer calls do."""
    with tempfile.NamedTemporaryFile("r", prefix="syscalls-") as table:
        load([*COUNTER, "--output", table.name, "--pid", pid, "--"])
        [count] = [line.split(",")[0] for line in table.read().splitlines() if "raw_syscalls" in line]
    return int(count)


def machine():
    """In a line."""
    cpuinfo, meminfo = Path("/proc/cpuinfo").read_text(), Path("/proc/meminfo").read_text()
    model = (re.findall(r"^model name\s*: (.+)$", cpuinfo, re.M) or [platform.machine()])[0]
    memory_gib = int(re.findall(r"^MemTotal:\s+(\d+)", meminfo)[0]) / (1 << 20)
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model}, {memory_gib:.0f} GiB, Linux {platform.release()}"
