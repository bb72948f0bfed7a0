package pail.conformance;

import static io.grpc.Status.Code.INVALID_ARGUMENT;
import static io.grpc.Status.Code.NOT_FOUND;

import io.grpc.Status;
import io.grpc.stub.BlockingClientCall;
import java.util.Map;
import java.util.concurrent.FutureTask;
import pail.client.Errors;
import pail.v1.AddRequest;
import pail.v1.CreateRequest;
import pail.v1.GetRequest;
import pail.v1.PipelineOp;
import pail.v1.PipelineRequest;
import pail.v1.PipelineResponse;
import pail.v1.PipelineResult;
import pail.v1.PutRequest;
import pail.v1.Value;

/** Ten thousand operations on one stream, read while they are written. */
final class Pipelined {
    private static final int OPS = 10_000;
    private static final int OPS_A_MESSAGE = 250;
    private static final long FIRST_ID = 1_000;
    private static final String BUCKET = "java-pipeline";

    private Pipelined() {}

    static void run(Client client, String address) throws Exception {
        var stream = client.streams().pipeline();
        var writing = new FutureTask<Void>(
                () -> {
                    write(stream);
                    return null;
                });
        Threads.daemon(writing);
        read(stream);
        writing.get();
    }

    private static void write(BlockingClientCall<PipelineRequest, PipelineResponse> stream) throws Exception {
        for (var n = 0; n < OPS; n += OPS_A_MESSAGE) {
            var request = PipelineRequest.newBuilder();
            for (var i = n; i < n + OPS_A_MESSAGE; i++) request.addOps(op(i));
            Check.holds("the stream takes operations", stream.write(request.build()));
        }
        stream.halfClose();
    }

    /** The operation at this place. Those after the Create are of the bucket that it made. */
    private static PipelineOp op(int n) {
        var op = PipelineOp.newBuilder().setId(FIRST_ID + n);
        if (n == 0) return op.setCreate(CreateRequest.newBuilder().setBucket(BUCKET)).build();
        if (n % 100 == 0) return op.setBucketIdFrom(1).setGet(get("k")).build();
        op.setBucketIdFrom(FIRST_ID);
        switch (n % 4) {
            case 1 -> op.setPut(PutRequest.newBuilder().setBucket(BUCKET).setKey("k" + n)
                    .setValue(Value.newBuilder().setInteger(n)));
            case 2 -> op.setGet(get("k" + (n - 1)));
            case 3 -> op.setGet(get("nothing"));
            default -> op.setAdd(AddRequest.newBuilder().setBucket(BUCKET).setKey("total").setDelta(1));
        }
        return op.build();
    }

    private static GetRequest.Builder get(String key) {
        return GetRequest.newBuilder().setBucket(BUCKET).setKey(key);
    }

    private static void read(BlockingClientCall<PipelineRequest, PipelineResponse> stream) throws Exception {
        var n = 0;
        var id = 0L;
        var total = 0L;
        for (var response = Check.next(stream); response != null; response = Check.next(stream)) {
            for (var result : response.getResultsList()) {
                Check.same("the id of a result", result.getId(), FIRST_ID + n);
                if (n == 0) {
                    Check.same("whether the first one created", result.getCreate().getCreated(), true);
                    id = result.getCreate().getBucket().getId();
                } else if (n % 100 == 0) {
                    failed(result, INVALID_ARGUMENT, "INVALID_OPTION");
                } else {
                    switch (n % 4) {
                        case 1 -> Check.same("the bucket of a put", result.getPut().getBucketId(), id);
                        case 2 -> {
                            var found = result.getGet().getEntry().getValue();
                            Check.same("what a get finds", found.getInteger(), n - 1L);
                        }
                        case 3 -> failed(result, NOT_FOUND, "KEY_NOT_FOUND");
                        default -> Check.same("a sum", result.getAdd().getValue(), ++total);
                    }
                }
                n++;
            }
        }
        Check.same("the answers", n, OPS);
    }

    private static void failed(PipelineResult result, Status.Code code, String reason) {
        var actual = Status.fromCodeValue(result.getError().getCode()).getCode();
        Check.is(Errors.infoIn(result.getError().getDetailsList()), actual, code, reason, Map.of());
    }
}
