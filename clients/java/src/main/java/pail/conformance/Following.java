package pail.conformance;

import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.ManagedChannel;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import pail.client.ResumingWatch;
import pail.v1.Event;
import pail.v1.WatchRequest;

/** A resuming watch by prefix on a thread of its own, to be asked for what it was told next. */
final class Following implements AutoCloseable {
    private final BlockingQueue<String> told = new LinkedBlockingQueue<>();
    private final List<String> resets = Collections.synchronizedList(new ArrayList<>());
    private final Thread thread;

    Following(ManagedChannel channel, String prefix) {
        var request = WatchRequest.newBuilder().setPrefix(prefix).build();
        thread = Threads.daemon(() -> {
            try {
                new ResumingWatch().run(channel, request, event -> told.add(brief(event)), resets::add);
            } catch (InterruptedException closed) {
                // As it should be.
            } catch (Exception failed) {
                told.add("failed: " + failed);
            }
        });
    }

    /** The next event in short, as `brief` has it; what was told since is kept. */
    String next() throws InterruptedException {
        var event = told.poll(2 * Check.SOON_S, SECONDS);
        if (event == null) throw new AssertionError("no event within " + 2 * Check.SOON_S + " s");
        return event;
    }

    /** The ids of the registries of which the watch began anew. */
    List<String> resets() {
        return List.copyOf(resets);
    }

    static String brief(Event event) {
        return switch (event.getEventCase()) {
            case CREATED -> (event.getCreated().getInitial() ? "alive " : "created ") + event.getCreated().getBucket();
            case DOWN -> "down " + event.getDown().getBucket() + " " + event.getDown().getReason();
            default -> event.toString();
        };
    }

    @Override
    public void close() {
        thread.interrupt();
    }
}
