"""Why a call failed, for programs: pail's reason and the facts that come with it."""

from google.rpc import error_details_pb2
from grpc_status import rpc_status


def error_info(error):
    """The ErrorInfo of an RPC error, with `reason` and `metadata`; an empty one where the error is not pail's own."""
    status = rpc_status.from_call(error)
    return info_of(status.details if status else ())


def info_of(details):
    """The same, from the details of a google.rpc.Status, such as that of a Pipeline's result."""
    info = error_details_pb2.ErrorInfo()
    for detail in details:
        if detail.Unpack(info) and info.domain == "pail":
            return info
    return error_details_pb2.ErrorInfo()
