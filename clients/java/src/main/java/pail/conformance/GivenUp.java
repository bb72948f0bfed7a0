package pail.conformance;

import static java.util.concurrent.TimeUnit.MILLISECONDS;

import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import pail.v1.WatchRequest;
import pail.v1.WatchResponse;

/** Calls that are given up, and a server that answers all the same. */
final class GivenUp {
    private GivenUp() {}

    static void run(Client client, String address) throws Exception {
        var bucket = "java-patient";
        var id = client.created(bucket);
        var request = WatchRequest.newBuilder().addBuckets(bucket).build();

        var hurried = client.streams().withDeadlineAfter(500, MILLISECONDS).watch(request);
        begins(hurried);
        Check.same("the end of a watch past its deadline", codeOf(hurried), Status.Code.DEADLINE_EXCEEDED);

        var cancelled = client.streams().watch(request);
        begins(cancelled);
        cancelled.cancel("enough", null);
        Check.same("the end of a watch that was cancelled", codeOf(cancelled), Status.Code.CANCELLED);

        Check.same("what the server answers", client.lookup(bucket), id);
    }

    private static void begins(BlockingClientCall<?, WatchResponse> watch) throws Exception {
        Check.holds("the watch begins", Check.next(watch).hasStarted());
        Check.holds("the snapshot is over", Check.next(watch).hasSynced());
    }

    /** The code with which the stream fails. */
    private static Status.Code codeOf(BlockingClientCall<?, WatchResponse> watch) throws InterruptedException {
        try {
            throw new AssertionError("the watch went on: " + Check.next(watch));
        } catch (StatusException error) {
            return error.getStatus().getCode();
        }
    }
}
