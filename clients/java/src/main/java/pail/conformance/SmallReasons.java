package pail.conformance;

import static io.grpc.Status.Code.OUT_OF_RANGE;
import static io.grpc.Status.Code.RESOURCE_EXHAUSTED;

import com.google.protobuf.ByteString;
import io.grpc.stub.BlockingClientCall;
import java.util.ArrayList;
import java.util.Map;
import pail.client.Connect;
import pail.v1.Reason;
import pail.v1.Value;
import pail.v1.WatchRequest;
import pail.v1.WatchResponse;

/** The reasons of a server that is full. */
final class SmallReasons {
    /** Past any limit that a small server has. */
    private static final int MANY = 1_000;

    private SmallReasons() {}

    static void run() throws Exception {
        // The window is HTTP/2's own; netty's of 1 MiB would take in all that the slow watch does not read.
        var channel = Connect.builder(Setting.of("PAIL_SMALL")).flowControlWindow(65_535).build();
        try (var client = new Client(channel)) {
            full(client);
            history(client);
            longStreams(client);
        }
    }

    private interface Attempt {
        void run(int n) throws Exception;
    }

    /** Does it until it is refused, with this reason. */
    private static void untilRefused(String reason, Attempt attempt) throws Exception {
        Check.refused(RESOURCE_EXHAUSTED, reason, Map.of("limit", Check.ANY), () -> {
            for (var n = 0; n < MANY; n++) attempt.run(n);
            return MANY + " times";
        });
    }

    private static void full(Client client) throws Exception {
        var bucket = "java-full";
        client.created(bucket);
        var flag = Value.newBuilder().setFlag(true).build();
        untilRefused("TOO_MANY_ENTRIES", n -> client.put(bucket, "k" + n, flag));
        var large = Value.newBuilder().setData(ByteString.copyFrom(new byte[1 << 20])).build();
        untilRefused("OUT_OF_MEMORY", n -> client.put(bucket, "k0", large));
        client.stop(bucket);

        var crowd = new ArrayList<String>();
        untilRefused("TOO_MANY_BUCKETS", n -> {
            client.created("java-crowd-" + n);
            crowd.add("java-crowd-" + n);
        });
        for (var name : crowd) client.stop(name);
    }

    /** Who does not read falls behind, and can't go on where it was. */
    private static void history(Client client) throws Exception {
        var lagging = client.streams().watch(WatchRequest.newBuilder().setPrefix("java-").build());
        var started = Check.next(lagging).getStarted();
        var synced = Check.next(lagging);
        Check.holds("a snapshot of nothing is over at once", synced.hasSynced());

        // Far more than HTTP/2 and this process hold for a stream that nobody reads.
        for (var n = 0; n < 500; n++) {
            client.created("java-lag");
            client.stop("java-lag", Reason.REASON_NORMAL, "d".repeat(1_024));
        }
        var seen = new long[1];
        var info = Check.refused(RESOURCE_EXHAUSTED, "WATCHER_LAGGED", Map.of(), () -> {
            for (var response = Check.next(lagging); response != null; response = Check.next(lagging)) {
                seen[0] = response.getRevision();
            }
            return "OK";
        });
        Check.same("resume_revision", info.getMetadataMap().get("resume_revision"), String.valueOf(seen[0]));

        var resume = WatchRequest.newBuilder().setPrefix("java-").setAfterRevision(synced.getRevision())
                .setRegistryId(started.getRegistryId()).build();
        var oldest = Map.of("oldest_revision", Check.ANY);
        Check.refused(OUT_OF_RANGE, "REVISION_COMPACTED", oldest, () -> Check.next(client.streams().watch(resume)));
    }

    private static void longStreams(Client client) throws Exception {
        var request = WatchRequest.newBuilder().setPrefix("java-").setSkipInitial(true).build();
        var open = new ArrayList<BlockingClientCall<?, WatchResponse>>();
        try {
            untilRefused("TOO_MANY_STREAMS", n -> {
                open.add(client.streams().watch(request));
                Check.next(open.get(n));
            });
        } finally {
            for (var stream : open) stream.cancel("enough", null);
        }
    }
}
