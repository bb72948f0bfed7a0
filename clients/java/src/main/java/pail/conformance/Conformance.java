package pail.conformance;

import static java.util.concurrent.TimeUnit.SECONDS;

import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeoutException;
import pail.v1.ListRequest;

/** Holds this client against a server: the steps, their numbers and their words are those of the other languages. */
public final class Conformance {
    private static final int STEP_S = 60;

    private record Named(String words, Step step) {}

    private static final List<Named> STEPS = List.of(
            new Named("session", Session::run),
            new Named("values", Values::run),
            new Named("reasons", Reasons::run),
            new Named("watch by name", WatchByName::run),
            new Named("watch by prefix", WatchByPrefix::run),
            new Named("link closed and link killed", Links::run),
            new Named("server restart", ServerRestart::run),
            new Named("pipeline", Pipelined::run),
            new Named("deadline and cancel", GivenUp::run));

    private Conformance() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 3 && arguments[0].equals(Links.HOLD)) {
            Links.hold(arguments[1], arguments[2]);
        } else if (arguments.length == 1) {
            // Whatever a step has left running is no reason to stay.
            System.exit(conforms(arguments[0]) ? 0 : 1);
        } else {
            System.err.println("usage: conformance ADDRESS");
            System.exit(2);
        }
    }

    private static boolean conforms(String address) throws InterruptedException {
        var held = 0;
        for (var n = 0; n < STEPS.size(); n++) {
            var words = STEPS.get(n).words();
            try {
                within(STEPS.get(n).step(), address);
                held++;
                System.out.printf("ok %d %s%n", n + 1, words);
            } catch (ExecutionException wrong) {
                System.out.printf("not ok %d %s: %s%n", n + 1, words, why(wrong.getCause()));
            } catch (TimeoutException late) {
                System.out.printf("not ok %d %s: it did not end within %d s%n", n + 1, words, STEP_S);
            }
        }
        System.out.printf("conformance: java: %d of %d%n", held, STEPS.size());
        return held == STEPS.size();
    }

    /** Runs a step on a thread of its own, with a connection of its own. */
    private static void within(Step step, String address)
            throws ExecutionException, InterruptedException, TimeoutException {
        var task = new FutureTask<Void>(
                () -> {
                    try (var client = new Client(address)) {
                        sweep(client);
                        step.run(client, address);
                    }
                    return null;
                });
        Threads.daemon(task);
        try {
            task.get(STEP_S, SECONDS);
        } finally {
            task.cancel(true);
        }
    }

    /** Stops what a step or a run before this one has left behind. */
    private static void sweep(Client client) throws Exception {
        var request = ListRequest.newBuilder().setPrefix("java-").build();
        for (var page = client.calls().list(request); page.getBucketsCount() > 0; page = client.calls().list(request)) {
            for (var bucket : page.getBucketsList()) client.stop(bucket.getName());
        }
    }

    /** In a line, with the place in the steps where it was thrown. */
    private static String why(Throwable wrong) {
        var place = "";
        for (var frame : wrong.getStackTrace()) {
            if (frame.getClassName().startsWith("pail.conformance.") && !frame.getClassName().endsWith(".Check")) {
                place = " (%s:%d)".formatted(frame.getFileName(), frame.getLineNumber());
                break;
            }
        }
        return (wrong + place).replaceAll("\\s+", " ");
    }
}
