"""Holds a pail server, and this client, to the contract: the steps of ../CONFORMANCE.md, a line each.

    conformance.py ADDRESS                  the steps; PAIL_SMALL and PAIL_BIN come from the runner
    conformance.py --link ADDRESS BUCKET    links the bucket, says so, and waits to be killed: step 6
"""

import asyncio
import sys

import grpc

from steps.checks import Wrong
from steps.links import link_and_wait, links
from steps.pipeline import pipeline
from steps.reasons import reasons
from steps.restart import server_restart
from steps.session import deadline_and_cancel, session, values
from steps.watches import watch_by_name, watch_by_prefix

STEP_S = 60

STEPS = [
    ("session", session),
    ("values", values),
    ("reasons", reasons),
    ("watch by name", watch_by_name),
    ("watch by prefix", watch_by_prefix),
    ("link closed and link killed", links),
    ("server restart", server_restart),
    ("pipeline", pipeline),
    ("deadline and cancel", deadline_and_cancel),
]


def in_a_line(why):
    match why:
        case Wrong():
            words = str(why)
        case grpc.aio.AioRpcError():
            words = f"it failed: {why.code().name}: {why.details()}"
        case TimeoutError():
            words = f"it took longer than {STEP_S} s"
        case _:
            words = repr(why)
    return " ".join(words.split())


async def run(address):
    passed = 0
    for number, (words, step) in enumerate(STEPS, start=1):
        try:
            async with asyncio.timeout(STEP_S):
                await step(address)
        except Exception as why:  # whatever it is, the other steps are of interest too
            print(f"not ok {number} {words}: {in_a_line(why)}", flush=True)
        else:
            passed += 1
            print(f"ok {number} {words}", flush=True)
    print(f"conformance: python: {passed} of {len(STEPS)}")
    return 0 if passed == len(STEPS) else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--link", address, bucket]:
            asyncio.run(link_and_wait(address, bucket))
        case [address]:
            sys.exit(asyncio.run(run(address)))
        case _:
            sys.exit(__doc__)
