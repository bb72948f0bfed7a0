package pail.conformance;

import static io.grpc.Status.Code.NOT_FOUND;

import java.util.Map;
import pail.v1.CreateRequest;
import pail.v1.DeleteRequest;
import pail.v1.Value;

/** The session of the guide: a bucket, an entry, and their ends. */
final class Session {
    private Session() {}

    static void run(Client client, String address) throws Exception {
        var bucket = "java-shopping";
        var create = CreateRequest.newBuilder().setBucket(bucket).build();

        var first = client.calls().create(create);
        Check.same("the first Create has created", first.getCreated(), true);
        var again = client.calls().create(create);
        Check.same("the second Create has created", again.getCreated(), false);
        Check.same("the id of the second Create", again.getBucket().getId(), first.getBucket().getId());
        Check.refused(NOT_FOUND, "BUCKET_NOT_FOUND", Map.of(), () -> client.lookup("java-nobody"));

        client.put(bucket, "milk", Value.newBuilder().setInteger(3).build());
        Check.same("milk", client.get(bucket, "milk").getEntry().getValue(), Value.newBuilder().setInteger(3).build());
        Check.refused(NOT_FOUND, "KEY_NOT_FOUND", Map.of(), () -> client.get(bucket, "eggs"));

        var delete = DeleteRequest.newBuilder().setBucket(bucket).setKey("milk").build();
        Check.same("what Delete removed", client.calls().delete(delete).getEntry().getValue().getInteger(), 3L);
        Check.same("whether Delete found it again", client.calls().delete(delete).hasEntry(), false);

        client.stop(bucket);
        Check.refused(NOT_FOUND, "BUCKET_NOT_FOUND", Map.of(), () -> client.lookup(bucket));
        Check.holds("a namesake has another id", client.created(bucket) != first.getBucket().getId());
    }
}
