package pail.conformance;

import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.ManagedChannel;
import io.grpc.StatusException;
import pail.client.Connect;
import pail.v1.BucketServiceGrpc;
import pail.v1.BucketServiceGrpc.BucketServiceBlockingV2Stub;
import pail.v1.CreateRequest;
import pail.v1.GetRequest;
import pail.v1.GetResponse;
import pail.v1.LookupRequest;
import pail.v1.PutRequest;
import pail.v1.PutResponse;
import pail.v1.Reason;
import pail.v1.StopRequest;
import pail.v1.Value;

/** A connection, and what the steps call most. */
record Client(ManagedChannel channel) implements AutoCloseable {
    Client(String address) {
        this(Connect.to(address));
    }

    /** For unary calls: each has five seconds. */
    BucketServiceBlockingV2Stub calls() {
        return streams().withDeadlineAfter(5, SECONDS);
    }

    /** For streams, which have no deadline: their reads have. */
    BucketServiceBlockingV2Stub streams() {
        return BucketServiceGrpc.newBlockingV2Stub(channel);
    }

    /** Creates a bucket and returns its id. */
    long created(String bucket) throws StatusException {
        var response = calls().create(CreateRequest.newBuilder().setBucket(bucket).build());
        Check.same("whether Create created " + bucket, response.getCreated(), true);
        return response.getBucket().getId();
    }

    /** The id of a bucket that lives. */
    long lookup(String bucket) throws StatusException {
        return calls().lookup(LookupRequest.newBuilder().setBucket(bucket).build()).getBucket().getId();
    }

    void stop(String bucket) throws StatusException {
        stop(bucket, Reason.REASON_NORMAL, "");
    }

    void stop(String bucket, Reason reason, String detail) throws StatusException {
        var request = StopRequest.newBuilder().setBucket(bucket).setReason(reason).setDetail(detail).build();
        calls().stop(request);
    }

    PutResponse put(String bucket, String key, Value value) throws StatusException {
        return calls().put(PutRequest.newBuilder().setBucket(bucket).setKey(key).setValue(value).build());
    }

    GetResponse get(String bucket, String key) throws StatusException {
        return calls().get(GetRequest.newBuilder().setBucket(bucket).setKey(key).build());
    }

    @Override
    public void close() {
        channel.shutdownNow();
    }
}
