package pail.conformance;

import io.grpc.stub.BlockingClientCall;
import java.nio.file.Path;
import pail.v1.LinkBucket;
import pail.v1.LinkMode;
import pail.v1.LinkPing;
import pail.v1.LinkRequest;
import pail.v1.LinkResponse;
import pail.v1.Reason;
import pail.v1.WatchRequest;

/** A link that is closed leaves its bucket alive; one whose client is killed does not. */
final class Links {
    /** With this argument the program is the client that is killed. */
    static final String HOLD = "--hold-link";

    private Links() {}

    static void run(Client client, String address) throws Exception {
        closed(client);
        killed(client, address);
    }

    private static BlockingClientCall<LinkRequest, LinkResponse> link(Client client, String bucket) throws Exception {
        var link = client.streams().link();
        var request = LinkBucket.newBuilder().setBucket(bucket).setMode(LinkMode.LINK_MODE_CREATE_IF_ABSENT);
        link.write(LinkRequest.newBuilder().setId(1).setLink(request).build());
        return link;
    }

    private static void closed(Client client) throws Exception {
        var bucket = "java-lives";
        var link = link(client, bucket);
        var id = Check.next(link).getLinked().getBucketId();
        link.write(LinkRequest.newBuilder().setId(2).setPing(LinkPing.getDefaultInstance()).build());
        Check.holds("a ping has a pong", Check.next(link).hasPong());

        link.halfClose();
        Check.same("what comes after a good-bye", Check.next(link), null);

        Check.same("the bucket that lives on", client.lookup(bucket), id);
    }

    private static void killed(Client client, String address) throws Exception {
        var bucket = "java-dies";
        var java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        var classes = System.getProperty("java.class.path");
        var child = new ProcessBuilder(java, "-cp", classes, Conformance.class.getName(), HOLD, address, bucket)
                .redirectError(ProcessBuilder.Redirect.INHERIT)
                .start();
        try {
            var id = child.inputReader().readLine();
            var watch = client.streams().watch(WatchRequest.newBuilder().addBuckets(bucket).build());
            var started = Check.next(watch).getStarted();
            Check.same("the bucket that is watched", String.valueOf(started.getMonitors(0).getBucketId()), id);
            Check.holds("nothing happened yet", Check.next(watch).hasSynced());

            child.destroyForcibly(); // SIGKILL

            // Within Check.SOON_S, which are the five seconds that are promised.
            var down = Check.next(watch).getEvents().getEvents(0).getDown();
            Check.same("the reason", down.getReason(), Reason.REASON_NOCONNECTION);
        } finally {
            child.destroyForcibly();
        }
    }

    /** The other process: links the bucket, says its id, and stays. */
    static void hold(String address, String bucket) throws Exception {
        try (var client = new Client(address)) {
            var link = link(client, bucket);
            System.out.println(Check.next(link).getLinked().getBucketId());
            while (link.read() != null) {
                // Heartbeats.
            }
        }
    }
}
