"""The calls that many steps make."""

from pail.v1 import pail_pb2 as pb
from pail.v1.pail_pb2_grpc import BucketServiceStub

from connect import connect


def client(address, *options):
    """A channel that is closed at the end of a `with`, and its stub."""
    channel = connect(address, *options)
    return channel, BucketServiceStub(channel)


def put(bucket, key, **value):
    return pb.PutRequest(bucket=bucket, key=key, value=pb.Value(**value))


def get(bucket, key):
    return pb.GetRequest(bucket=bucket, key=key)


async def create(stub, bucket):
    return (await stub.Create(pb.CreateRequest(bucket=bucket))).bucket


async def stop(stub, bucket, reason=pb.REASON_NORMAL, detail=""):
    return await stub.Stop(pb.StopRequest(bucket=bucket, reason=reason, detail=detail))
