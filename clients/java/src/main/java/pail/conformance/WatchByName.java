package pail.conformance;

import java.util.ArrayList;
import java.util.List;
import pail.v1.DownEvent;
import pail.v1.Event;
import pail.v1.Monitor;
import pail.v1.Reason;
import pail.v1.WatchRequest;
import pail.v1.WatchResponse;

/** Watching by name: one DOWN each, and then the end. */
final class WatchByName {
    private WatchByName() {}

    static void run(Client client, String address) throws Exception {
        var bucket = "java-watched";
        var nobody = "java-nobody";
        var id = client.created(bucket);

        var watch = client.streams().watch(WatchRequest.newBuilder().addBuckets(bucket).addBuckets(nobody).build());
        var monitors = Check.next(watch).getStarted().getMonitorsList();
        var names = monitors.stream().map(Monitor::getBucket).toList();
        Check.same("the names, in the order asked", names, List.of(bucket, nobody));
        Check.same("the ids", monitors.stream().map(Monitor::getBucketId).toList(), List.of(id, 0L));
        var ref = monitors.get(0).getRef();
        var absent = monitors.get(1).getRef();
        Check.holds("each has a ref of its own", ref != 0 && absent != 0 && ref != absent);
        var noproc = List.of(down(absent, nobody, 0, Reason.REASON_NOPROC, ""));
        Check.same("what is told of the missing one", downs(Check.next(watch)), noproc);
        Check.holds("the snapshot is over", Check.next(watch).hasSynced());

        client.stop(bucket, Reason.REASON_CRASHED, "why");
        var told = new ArrayList<DownEvent>();
        // The end is OK: any other would be thrown here.
        for (var response = Check.next(watch); response != null; response = Check.next(watch)) {
            told.addAll(downs(response));
        }
        Check.same("what is told of the other", told, List.of(down(ref, bucket, id, Reason.REASON_CRASHED, "why")));
    }

    private static DownEvent down(long ref, String bucket, long id, Reason reason, String detail) {
        return DownEvent.newBuilder()
                .setRef(ref).setBucket(bucket).setBucketId(id).setReason(reason).setDetail(detail).build();
    }

    /** The DOWNs of a response, without version, revision and time; there must be nothing else. */
    private static List<DownEvent> downs(WatchResponse response) {
        Check.holds("it is events, and all are DOWN", response.hasEvents()
                && response.getEvents().getEventsList().stream().allMatch(Event::hasDown));
        return response.getEvents().getEventsList().stream()
                .map(event -> event.getDown().toBuilder().clearVersion().clearRevision().clearTime().build())
                .toList();
    }
}
