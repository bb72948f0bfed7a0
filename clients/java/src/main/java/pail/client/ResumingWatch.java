package pail.client;

import static java.util.concurrent.TimeUnit.MILLISECONDS;

import com.google.protobuf.Duration;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusException;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;
import pail.v1.BucketServiceGrpc;
import pail.v1.Event;
import pail.v1.WatchRequest;
import pail.v1.WatchResponse;

/** A watch that goes on: over broken connections, drains and restarts of the server. Copy it, and Errors with it. */
public final class ResumingWatch {
    private static final Duration HEARTBEAT = Duration.newBuilder().setSeconds(5).build();
    private static final long BACKOFF_MIN_MS = 100;
    private static final long BACKOFF_MAX_MS = 5_000;

    private String registryId = ""; // of the revision; empty until there was a watch
    private long revision; // up to which all was told; 0 until a snapshot is complete
    private long backoffMs = BACKOFF_MIN_MS;

    /**
     * Tells the events of a Watch by prefix, or by name with follow, each once, on this thread: interrupt it to end.
     *
     * <p>Where it can't be resumed it takes a new snapshot, and tells the registry's id first: drop what you know.
     * Silence for three heartbeats is taken for a broken connection.
     *
     * @throws StatusException for errors that are not about the way to the server
     */
    public void run(ManagedChannel channel, WatchRequest request, Consumer<Event> onEvent, Consumer<String> onReset)
            throws StatusException, InterruptedException {
        while (true) {
            try {
                watch(channel, request, onEvent, onReset);
                return;
            } catch (TimeoutException silent) {
                // Whatever the connection says, nobody is there.
            } catch (StatusException error) {
                var info = Errors.infoOf(error);
                switch (info.getReason()) {
                    case "REVISION_COMPACTED", "REVISION_UNKNOWN" -> revision = 0;
                    case "WATCHER_LAGGED" ->
                        revision = Long.parseLong(info.getMetadataOrDefault("resume_revision", "0"));
                    default -> {
                        if (error.getStatus().getCode() != Status.Code.UNAVAILABLE) throw error;
                    }
                }
            }
            Thread.sleep(ThreadLocalRandom.current().nextLong(backoffMs / 2, backoffMs));
            backoffMs = Math.min(2 * backoffMs, BACKOFF_MAX_MS);
            channel.resetConnectBackoff(); // The channel's own grows to two minutes.
        }
    }

    private void watch(ManagedChannel channel, WatchRequest request, Consumer<Event> onEvent, Consumer<String> onReset)
            throws StatusException, InterruptedException, TimeoutException {
        var resumed = revision != 0;
        var heartbeat = request.hasHeartbeat() ? request.getHeartbeat() : HEARTBEAT;
        var silenceMs = 3 * (heartbeat.getSeconds() * 1_000 + heartbeat.getNanos() / 1_000_000);
        var from = request.toBuilder().setHeartbeat(heartbeat);
        if (resumed) from.setAfterRevision(revision).setRegistryId(registryId);
        var call = BucketServiceGrpc.newBlockingV2Stub(channel).watch(from.build());
        try {
            WatchResponse response;
            while ((response = call.read(silenceMs, MILLISECONDS)) != null) {
                if (response.hasStarted()) {
                    if (!registryId.isEmpty() && !resumed) onReset.accept(response.getStarted().getRegistryId());
                    registryId = response.getStarted().getRegistryId();
                }
                response.getEvents().getEventsList().forEach(onEvent);
                revision = response.getRevision();
                if (revision != 0) backoffMs = BACKOFF_MIN_MS;
            }
        } finally {
            call.cancel("the watch is over", null);
        }
    }
}
