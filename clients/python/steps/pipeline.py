"""Step 8: many operations on one stream."""

from grpc import StatusCode as Code
from pail.v1 import pail_pb2 as pb

from steps.calls import client, get, put, stop
from steps.checks import is_error, same

OPS = 10_000
OPS_PER_MESSAGE = 250


def pipeline_op(op_id):
    """The first op creates a bucket, and all others name it by that op. Of ten, one fails in its place."""
    if op_id == 1:
        return pb.PipelineOp(id=1, create=pb.CreateRequest(bucket="pipeline"))
    op = pb.PipelineOp(id=op_id, bucket_id_from=1)
    if op_id % 10 == 0:
        op.get.CopyFrom(get("pipeline", "absent"))
    elif op_id % 2 == 0:
        op.put.CopyFrom(put("pipeline", "k", integer=op_id))
    else:
        op.get.CopyFrom(get("pipeline", "k"))
    return op


async def pipeline(address):
    channel, stub = client(address)
    async with channel:

        async def messages():
            for first in range(1, OPS + 1, OPS_PER_MESSAGE):
                yield pb.PipelineRequest(ops=map(pipeline_op, range(first, first + OPS_PER_MESSAGE)))

        # gRPC sends what `messages` yields while the answers are read; its end is the half-close.
        answered, bucket_id, last_put = 0, None, None
        async for response in stub.Pipeline(messages()):
            for result in response.results:
                answered += 1
                same("the id of a result", result.id, answered)
                if answered == 1:
                    bucket_id = result.create.bucket.id
                elif answered % 10 == 0:
                    is_error("a get in vain", result.error, Code.NOT_FOUND, "KEY_NOT_FOUND", key="absent")
                elif answered % 2 == 0:
                    same("the bucket of a put", result.put.bucket_id, bucket_id)
                    last_put = answered
                else:
                    same("what a get finds", result.get.entry.value.integer, last_put)
        same("the answers", answered, OPS)
        await stop(stub, "pipeline")
