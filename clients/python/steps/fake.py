"""A server that answers as it is told: for what the client must bear, and a real server does too rarely to wait for."""

import asyncio

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from pail.v1.pail_pb2_grpc import BucketServiceServicer, add_BucketServiceServicer_to_server

SILENCE = object()


def refusal(code, reason, **metadata):
    """An error as pail gives it."""
    return code, error_details_pb2.ErrorInfo(domain="pail", reason=reason, metadata=metadata)


class Fake(BucketServiceServicer):
    """Get and Put are unavailable. Each Watch is answered by the next list: of responses, and of how it ends."""

    def __init__(self, *watches):
        self.watches, self.asked, self.calls = iter(watches), [], []

    async def Get(self, request, context):
        await self._unavailable("Get", context)

    async def Put(self, request, context):
        await self._unavailable("Put", context)

    async def _unavailable(self, method, context):
        self.calls.append(method)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    async def Watch(self, request, context):
        self.asked.append(request)
        *responses, end = next(self.watches)
        for response in responses:
            yield response
        if end is SILENCE:
            await asyncio.Event().wait()
        code, info = end
        detail = any_pb2.Any()
        detail.Pack(info)
        status = status_pb2.Status(code=code.value[0], message="as told", details=[detail])
        details = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(code, status.message, trailing_metadata=details)

    async def __aenter__(self):
        self.server = grpc.aio.server()
        add_BucketServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        await self.server.start()
        return self

    async def __aexit__(self, *_):
        await self.server.stop(0)
