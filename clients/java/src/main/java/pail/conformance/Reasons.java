package pail.conformance;

import static io.grpc.Status.Code.ABORTED;
import static io.grpc.Status.Code.ALREADY_EXISTS;
import static io.grpc.Status.Code.FAILED_PRECONDITION;
import static io.grpc.Status.Code.INVALID_ARGUMENT;
import static io.grpc.Status.Code.NOT_FOUND;
import static io.grpc.Status.Code.OUT_OF_RANGE;
import static io.grpc.Status.Code.UNIMPLEMENTED;

import com.google.protobuf.ByteString;
import io.grpc.Status;
import java.util.Map;
import java.util.concurrent.Callable;
import pail.client.Errors;
import pail.v1.AddRequest;
import pail.v1.GetRequest;
import pail.v1.LinkBucket;
import pail.v1.LinkExit;
import pail.v1.LinkMode;
import pail.v1.LinkRequest;
import pail.v1.ListRequest;
import pail.v1.PutRequest;
import pail.v1.Reason;
import pail.v1.Value;
import pail.v1.WatchRequest;

/**
 * Every error reason that a client can cause, read from the details of the status. {@link SmallReasons} has those of a
 * server with small limits, {@link ServerRestart} has DRAINING.
 */
final class Reasons {
    private static final String BUCKET = "java-reasons";
    private static final Value TEXT = Value.newBuilder().setText("one").build();

    private Reasons() {}

    static void run(Client client, String address) throws Exception {
        client.created(BUCKET);
        requests(client);
        entries(client);
        streams(client);
        bytes(client);
        SmallReasons.run();
    }

    private static void requests(Client client) throws Exception {
        invalid("INVALID_NAME", Map.of("field", "bucket", "limit", 255, "actual", 0), () -> client.created(""));
        invalid("INVALID_KEY", Map.of("field", "key", "limit", 1024, "actual", 0), () -> client.get(BUCKET, ""));
        var unset = Value.getDefaultInstance();
        invalid("INVALID_VALUE", Map.of("field", "value"), () -> client.put(BUCKET, "k", unset));
        var negative = ListRequest.newBuilder().setPageSize(-1).build();
        invalid("INVALID_OPTION", Map.of("field", "page_size"), () -> client.calls().list(negative));
        var forged = ListRequest.newBuilder().setPageToken("no token").build();
        invalid("INVALID_PAGE_TOKEN", Map.of("field", "page_token"), () -> client.calls().list(forged));
        var large = Value.newBuilder().setData(ByteString.copyFrom(new byte[1_048_577])).build();
        invalid("TOO_LARGE", Map.of("limit", 1_048_576, "actual", 1_048_577), () -> client.put(BUCKET, "k", large));
    }

    private static void invalid(String reason, Map<String, ?> facts, Callable<?> call) throws Exception {
        Check.refused(INVALID_ARGUMENT, reason, facts, call);
    }

    private static void entries(Client client) throws Exception {
        var nobody = Map.of("bucket", "java-nobody");
        Check.refused(NOT_FOUND, "BUCKET_NOT_FOUND", nobody, () -> client.get("java-nobody", "k"));
        var namesake = GetRequest.newBuilder().setBucket(BUCKET).setBucketId(1).setKey("k").build();
        Check.refused(NOT_FOUND, "BUCKET_NOT_FOUND", Map.of("bucket", BUCKET), () -> client.calls().get(namesake));
        var bread = Map.of("bucket", BUCKET, "key", "bread");
        Check.refused(NOT_FOUND, "KEY_NOT_FOUND", bread, () -> client.get(BUCKET, "bread"));

        var version = client.put(BUCKET, "text", TEXT).getVersion();
        var sum = AddRequest.newBuilder().setBucket(BUCKET).setKey("text").setDelta(1).build();
        var text = Map.of("bucket", BUCKET, "key", "text");
        Check.refused(FAILED_PRECONDITION, "WRONG_TYPE", text, () -> client.calls().add(sum));
        var stale = PutRequest.newBuilder().setBucket(BUCKET).setBucketId(client.lookup(BUCKET)).setKey("text")
                .setValue(TEXT).setExpectedVersion(99).build();
        var actual = Map.of("actual_version", version);
        Check.refused(FAILED_PRECONDITION, "VERSION_MISMATCH", actual, () -> client.calls().put(stale));

        client.put(BUCKET, "most", Value.newBuilder().setInteger(Long.MAX_VALUE).build());
        var more = AddRequest.newBuilder().setBucket(BUCKET).setKey("most").setDelta(1).build();
        var most = Map.of("bucket", BUCKET, "key", "most");
        Check.refused(OUT_OF_RANGE, "INTEGER_OVERFLOW", most, () -> client.calls().add(more));
    }

    private static void streams(Client client) throws Exception {
        var bucket = "java-linked";
        var id = client.created(bucket); // It is also the revision.
        var old = WatchRequest.newBuilder().setPrefix("java-").setAfterRevision(1).build();
        unknown(client, old);
        unknown(client, old.toBuilder().setAfterRevision(id).setRegistryId("another").build());

        var facts = Map.of("bucket", bucket, "bucket_id", id);
        var link = client.streams().link();
        link.write(request(1, bucket, LinkMode.LINK_MODE_MUST_CREATE));
        var answer = Check.next(link);
        Check.same("the id of the answer", answer.getId(), 1L);
        var code = Status.fromCodeValue(answer.getError().getCode()).getCode();
        Check.is(Errors.infoIn(answer.getError().getDetailsList()), code, ALREADY_EXISTS, "BUCKET_EXISTS", facts);

        link.write(request(2, bucket, LinkMode.LINK_MODE_MUST_EXIST));
        Check.same("what was linked", Check.next(link).getLinked().getBucketId(), id);
        client.stop(bucket, Reason.REASON_KILLED, "why");
        var exit = LinkExit.newBuilder()
                .setBucket(bucket).setBucketId(id).setReason(Reason.REASON_KILLED).setDetail("why").build();
        Check.same("the exit", Check.next(link).getExit(), exit);
        Check.refused(ABORTED, "LINKED_EXIT", facts, () -> Check.next(link));
    }

    private static void unknown(Client client, WatchRequest request) throws Exception {
        var facts = Map.of("field", request.hasRegistryId() ? "registry_id" : "after_revision");
        Check.refused(OUT_OF_RANGE, "REVISION_UNKNOWN", facts, () -> Check.next(client.streams().watch(request)));
    }

    private static LinkRequest request(long id, String bucket, LinkMode mode) {
        var link = LinkBucket.newBuilder().setBucket(bucket).setMode(mode);
        return LinkRequest.newBuilder().setId(id).setLink(link).build();
    }

    /** Below the generated code: bytes that are no message, and a method that is not there. */
    private static void bytes(Client client) throws Exception {
        invalid("INVALID_MESSAGE", Map.of(), () -> RawCall.send(client.channel(), "Create", new byte[] {-1, -1}));
        var eat = (Callable<?>) () -> RawCall.send(client.channel(), "Eat", new byte[0]);
        Check.refused(UNIMPLEMENTED, "UNIMPLEMENTED", Map.of(), eat);
    }
}
