package pail.conformance;

import java.util.ArrayList;
import java.util.List;
import pail.v1.Event;
import pail.v1.Reason;
import pail.v1.WatchRequest;

/** Watching by prefix: what is there, then what happens, also over a connection that breaks. */
final class WatchByPrefix {
    private static final String PREFIX = "java-room-";
    private static final String EARLY = PREFIX + "early";

    private WatchByPrefix() {}

    static void run(Client client, String address) throws Exception {
        client.created(EARLY);
        inOrder(client);
        overACut(client, address);
        EveryEnd.run();
    }

    /** As the responses say it. */
    private static void inOrder(Client client) throws Exception {
        var watch = client.streams().watch(WatchRequest.newBuilder().setPrefix(PREFIX).build());
        Check.same("a prefix's monitors", Check.next(watch).getStarted().getMonitorsList(), List.of());
        var snapshot = Check.next(watch).getEvents().getEventsList();
        Check.same("the snapshot", snapshot.stream().map(Following::brief).toList(), List.of("alive " + EARLY));
        var synced = Check.next(watch);
        Check.holds("the snapshot is over", synced.hasSynced());

        client.created(PREFIX + "brief");
        client.stop(PREFIX + "brief");
        var live = new ArrayList<Event>();
        while (live.size() < 2) live.addAll(Check.next(watch).getEvents().getEventsList());
        Check.holds("CREATED, then DOWN", live.get(0).hasCreated() && live.get(1).hasDown());
        var created = live.get(0).getCreated().getRevision();
        Check.holds("it was created after the snapshot", synced.getRevision() < created);
        Check.holds("it went down after that", created < live.get(1).getDown().getRevision());
        watch.cancel("seen", null);
    }

    /** What was missed while there was no connection is told after it, once. */
    private static void overACut(Client client, String address) throws Exception {
        try (var line = new Line(address);
                var behind = new Client(line.address());
                var following = new Following(behind.channel(), PREFIX)) {
            Check.same("the snapshot", following.next(), "alive " + EARLY);
            client.created(PREFIX + "live");
            client.stop(PREFIX + "live");
            Check.same("what happens", following.next(), "created " + PREFIX + "live");
            Check.same("what happens next", following.next(), "down " + PREFIX + "live REASON_NORMAL");

            line.cut();
            client.created(PREFIX + "late");
            client.stop(EARLY, Reason.REASON_KILLED, "");
            client.created(EARLY);
            line.mend();

            Check.same("the first that was missed", following.next(), "created " + PREFIX + "late");
            Check.same("the second that was missed", following.next(), "down " + EARLY + " REASON_KILLED");
            Check.same("the third that was missed", following.next(), "created " + EARLY);
            // What comes after it shows that nothing came twice.
            client.created(PREFIX + "last");
            Check.same("what happens after that", following.next(), "created " + PREFIX + "last");
            Check.same("the resets", following.resets(), List.of());
            Check.same("the connections", line.connections(), 2);
        }
    }
}
