"""Checks that fail with words."""

import asyncio
import os

import grpc
from grpc_status import rpc_status

from errors import info_of

# Longer than anything here takes: past it, what was waited for does not come.
SOON_S = 10


class Wrong(Exception):
    """The server, or the client, did not do what it must."""


def same(what, actual, wanted):
    if actual != wanted:
        raise Wrong(f"{what}: {actual!r} instead of {wanted!r}")


def holds(what, condition):
    if not condition:
        raise Wrong(f"{what}: it does not hold")


def of(variable):
    """The value of an environment variable that the runner sets."""
    if value := os.environ.get(variable):
        return value
    raise Wrong(f"{variable} is not set: see CONFORMANCE.md")


async def soon(what, awaitable):
    try:
        async with asyncio.timeout(SOON_S):
            return await awaitable
    except TimeoutError:
        raise Wrong(f"{what}: it did not come within {SOON_S} s") from None


def is_error(what, status, code, reason, **facts):
    """Holds a google.rpc.Status to its code, reason and facts; a fact that is None must be there, whatever it is."""
    same(f"{what}: its code", status.code, code.value[0])
    info = info_of(status.details)
    same(f"{what}: its domain and reason", (info.domain, info.reason), ("pail", reason))
    for name, value in facts.items():
        holds(f"{what}: its metadata has {name}", name in info.metadata)
        if value is not None:
            same(f"{what}: {name} of its metadata", info.metadata[name], str(value))


async def refused(call, code, reason, **facts):
    """Waits for a call to fail, and for that reason."""
    try:
        answer = await soon(reason, call)
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        if status is None:
            raise Wrong(f"{reason}: it has no details, but: {error.code()}: {error.details()}") from None
        is_error(reason, status, code, reason, **facts)
    else:
        raise Wrong(f"{reason}: it was not refused, but answered: {answer}")
