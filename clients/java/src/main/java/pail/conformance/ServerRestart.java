package pail.conformance;

import static io.grpc.Status.Code.OUT_OF_RANGE;
import static io.grpc.Status.Code.UNAVAILABLE;

import io.grpc.StatusException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import pail.v1.Value;
import pail.v1.WatchRequest;

/** A server that stops and comes back with nothing: the watch says so, and goes on with what is there. */
final class ServerRestart {
    private static final String PREFIX = "java-";

    private ServerRestart() {}

    static void run(Client unused, String other) throws Exception {
        try (var server = new Server("127.0.0.1:0");
                var client = new Client(server.address());
                var following = new Following(client.channel(), PREFIX)) {
            overARestart(server, client, following);
        }
        whileUnavailable();
    }

    private static void overARestart(Server server, Client client, Following following) throws Exception {
        client.created("java-before");
        Check.same("the begin of the watch", created(following.next()), "created java-before");
        var watch = client.streams().watch(WatchRequest.newBuilder().setPrefix(PREFIX).setSkipInitial(true).build());
        var registryId = Check.next(watch).getStarted().getRegistryId();
        var synced = Check.next(watch);
        Check.holds("nothing else was there", synced.hasSynced());

        server.terminate();
        var end = Check.next(watch).getEvents().getEvents(0);
        Check.same("what the drain ends", Following.brief(end), "down java-before REASON_SHUTDOWN");
        Check.holds("the server says that it goes", Check.next(watch).hasDraining());
        Check.refused(UNAVAILABLE, "DRAINING", Map.of(), () -> Check.next(watch));
        Check.same("what the watch was told", following.next(), "down java-before REASON_SHUTDOWN");
        server.awaitEnd();
        Check.same("the resets so far", following.resets(), List.of());

        try (var again = new Server(server.address())) {
            Check.same("the address", again.address(), server.address());
            var resume = WatchRequest.newBuilder().setPrefix(PREFIX).setAfterRevision(synced.getRevision())
                    .setRegistryId(registryId).build();
            // The channel may not have found the server yet.
            Check.refused(OUT_OF_RANGE, "REVISION_UNKNOWN", Map.of("field", "registry_id"),
                    () -> Check.next(client.streams().withWaitForReady().watch(resume)));
            client.created("java-after");
            Check.same("how the watch goes on", created(following.next()), "created java-after");
            Check.same("the resets", following.resets().size(), 1);
            Check.holds("it is another registry", !following.resets().get(0).equals(registryId));
        }
    }

    /** What may be done twice is tried as often as the service config says, and what may not is tried once. */
    private static void whileUnavailable() throws Exception {
        try (var fake = new Fake();
                var client = new Client(fake.address())) {
            unavailable(() -> client.get("java-b", "k"));
            unavailable(() -> client.put("java-b", "k", Value.getDefaultInstance()));
            Check.same("what was tried", fake.calls(), List.of("Get", "Get", "Get", "Get", "Get", "Put"));
        }
    }

    private static void unavailable(Callable<?> call) throws Exception {
        try {
            throw new AssertionError("it was answered: " + call.call());
        } catch (StatusException error) {
            Check.same("the code", error.getStatus().getCode(), UNAVAILABLE);
        }
    }

    /** Whether it was there as the watch began, or came after that, is a matter of threads and of the back-off. */
    private static String created(String told) {
        return told.replace("alive ", "created ");
    }
}
