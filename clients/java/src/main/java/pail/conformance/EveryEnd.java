package pail.conformance;

import static io.grpc.Status.Code.INTERNAL;
import static io.grpc.Status.Code.OUT_OF_RANGE;
import static io.grpc.Status.Code.RESOURCE_EXHAUSTED;
import static io.grpc.Status.Code.UNAVAILABLE;

import com.google.protobuf.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import pail.client.ResumingWatch;
import pail.v1.WatchRequest;
import pail.v1.WatchResponse;
import pail.v1.WatchStarted;
import pail.v1.WatchSynced;

/** The ends of a watch that a real server does not give when it is asked to, and from where it goes on after each. */
final class EveryEnd {
    private EveryEnd() {}

    static void run() throws Exception {
        var lagged = Fake.refusal(RESOURCE_EXHAUSTED, "WATCHER_LAGGED", Map.of("resume_revision", "9"));
        var overloaded = Fake.refusal(UNAVAILABLE, "OVERLOADED", Map.of());
        var compacted = Fake.refusal(OUT_OF_RANGE, "REVISION_COMPACTED", Map.of("oldest_revision", "20"));
        var draining = Fake.refusal(UNAVAILABLE, "DRAINING", Map.of());
        var panic = Fake.refusal(INTERNAL, "PANIC", Map.of());
        try (var fake = new Fake(
                        new Fake.Script(List.of(begin("one", 0), synced(7)), null),
                        new Fake.Script(List.of(begin("one", 7)), lagged),
                        new Fake.Script(List.of(), overloaded),
                        new Fake.Script(List.of(), compacted),
                        new Fake.Script(List.of(begin("one", 0)), draining),
                        new Fake.Script(List.of(begin("two", 0), synced(30)), panic));
                var client = new Client(fake.address())) {
            // Three of them are longer than a connection takes on a machine that has much to do.
            var heartbeat = Duration.newBuilder().setSeconds(1);
            var request = WatchRequest.newBuilder().setPrefix("").setHeartbeat(heartbeat).build();
            var resets = new ArrayList<String>();
            Check.refused(INTERNAL, "PANIC", Map.of(), () -> {
                new ResumingWatch().run(client.channel(), request, event -> {}, resets::add);
                return "OK";
            });
            var places = fake.asked().stream().map(EveryEnd::place).toList();
            Check.same("from where it went on", places, List.of(" 0", "one 7", "one 9", "one 9", " 0", " 0"));
            Check.same("the resets", resets, List.of("one", "two"));
        }
    }

    private static WatchResponse begin(String registryId, long revision) {
        var started = WatchStarted.newBuilder().setRegistryId(registryId);
        return WatchResponse.newBuilder().setRevision(revision).setStarted(started).build();
    }

    private static WatchResponse synced(long revision) {
        return WatchResponse.newBuilder().setRevision(revision).setSynced(WatchSynced.getDefaultInstance()).build();
    }

    private static String place(WatchRequest asked) {
        return asked.getRegistryId() + " " + asked.getAfterRevision();
    }
}
