#!/usr/bin/env python3
"""h2spec against pail, and against a stock tonic server, which is plain hyper: pail fails nothing that hyper does not.

    tests/h2spec.py target/release/pail [--require]

What both fail is listed here, with the reason; a case that is not in the list, or is in it and passes, is to be looked at.
With --require it fails where cargo or h2spec (go install github.com/summerwind/h2spec/cmd/h2spec@latest) is missing.
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "benches" / "comparison"))

from peers import StockTonic
from world import Server, end_as_told, has, pail_to_test, require

# A gRPC path, so that both servers have a stream open for as long as a case wants one.
PATH = "/pail.v1.BucketService/Get"
TIMEOUT_S = 240

# The case, and why hyper's h2 fails it.
KNOWN = {
}


def failures(address):
    """The cases that a server fails, by section and words, and how many there were."""
    host, port = address.split(":")
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = ["h2spec", "--strict", "-h", host, "-p", port, "-P", PATH, "-j", report]
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False)
        require(report.is_file(), "h2spec wrote no report")
        cases = xml.parse(report).getroot().findall(".//testcase")
    failed = {f"{case.get('package')}: {case.get('classname')}" for case in cases if len(case) and case[0].tag != "skipped"}
    return failed, len(cases)


def main():
    pail = pail_to_test(__doc__, has("cargo", "h2spec"))
    with Server(pail) as server:
        ours, count = failures(server.address)
        panics = [line for line in server.log if "panic" in line]
    with StockTonic(64) as server:
        theirs, _ = failures(server.address)
    print(f"{count} cases: pail fails {len(ours)}, stock tonic {len(theirs)}")
    for case in sorted(ours | theirs):
        who = "both" if case in ours and case in theirs else "pail" if case in ours else "stock tonic"
        print(f"{who:<12} {case}: {KNOWN.get(case, 'not known')}")
    require(count > 100, f"h2spec ran {count} cases")
    require(not panics, f"the log holds {panics}")
    require(ours <= theirs, f"hyper passes: {ours - theirs}")
    require(ours == set(KNOWN), f"not as listed: {ours ^ set(KNOWN)}")


if __name__ == "__main__":
    end_as_told(main)
