#!/usr/bin/env python3
"""OPERATIONS.md speaks of each setting, each metric and each line of the log that there is, and of no other.

    tests/operations.py target/release/pail
"""

import re
import subprocess
from pathlib import Path

from world import Wrong, end_as_told, pail_to_test

ROOT = Path(__file__).resolve().parent.parent
# What an operator sees unless he asks for more: the macro, and the text after what is recorded with it.
LINE = re.compile(r'tracing::(error|warn|info)!\(((?:[^"()]|\((?:[^()]|\([^()]*\))*\))*)"((?:[^"\\]|\\.)*)"', re.S)
SETTING = re.compile(r"^(?:# )?([a-z-]+) =", re.M)
ROW = re.compile(r"^\| (`[^|]+`) \|(?: (error|warn|info) \|)?", re.M)
# Constants in the one text that has some.
CONSTANTS = {"{RESTARTS_MAX}": "3", "{RESTART_WINDOW:?}": "5s"}


def logged():
    """The level of each text."""
    lines = {}
    for path in (ROOT / "src").rglob("*.rs"):
        if "client" in path.parts:
            continue
        for level, _, text in LINE.findall(path.read_text()):
            for name, value in CONSTANTS.items():
                text = text.replace(name, value)
            lines[text] = level
    return lines


def main():
    pail = pail_to_test(__doc__, {})
    printed = subprocess.run([pail, "serve", "--print-config"], capture_output=True, text=True, check=True).stdout
    metrics = re.findall(r'(?:gauge|counters|info|encode_descriptor)\(\s*"([a-z_0-9]+)"|^        \("(process_[a-z_]+)"', (ROOT / "src/metrics.rs").read_text(), re.M)
    there = {name or other: "" for name, other in metrics} | logged() | {name: "" for name in SETTING.findall(printed)}
    rows = ROW.findall((ROOT / "OPERATIONS.md").read_text())
    told = {name: level for names, level in rows for name in re.findall("`([^`]+)`", names)}
    wrong = [f"{text!r} ({level or 'a setting'}) is not told of" for text, level in there.items() if told.get(text) != level]
    wrong += [f"{text!r} ({level or 'a setting'}) is told of, and there is none" for text, level in told.items() if there.get(text) != level]
    if wrong:
        raise Wrong("OPERATIONS.md: " + "\n".join(wrong))
    print(f"{len(there)} settings, metrics and lines of the log are told of")


if __name__ == "__main__":
    end_as_told(main)
