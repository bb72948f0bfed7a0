package pail.conformance;

import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.IOException;
import java.util.concurrent.CompletableFuture;

/** A server of a step's own. */
final class Server implements AutoCloseable {
    private final Process process;
    private final String address;

    Server(String listen) throws Exception {
        process = new ProcessBuilder(Setting.of("PAIL_BIN"), "serve", "--listen", listen, "--log-format", "json")
                .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                .start();
        var listening = new CompletableFuture<String>();
        Threads.daemon(() -> read(process.errorReader(), listening));
        try {
            address = listening.get(10, SECONDS);
        } catch (Exception failed) {
            process.destroyForcibly();
            throw failed;
        }
    }

    String address() {
        return address;
    }

    /** Waits for the address that the log tells, and reads on, so that the server never waits for a reader. */
    private static void read(BufferedReader log, CompletableFuture<String> listening) {
        try (log) {
            for (var line = log.readLine(); line != null; line = log.readLine()) {
                var fields = JsonParser.parseString(line).getAsJsonObject().getAsJsonObject("fields");
                if (fields.get("message").getAsString().equals("listening")) {
                    listening.complete(fields.get("address").getAsString());
                }
            }
            listening.completeExceptionally(new AssertionError("the server has ended"));
        } catch (IOException | RuntimeException broken) {
            listening.completeExceptionally(broken);
        }
    }

    /** Sends SIGTERM. By the handle: the process's own `destroy` would close the log as well. */
    void terminate() {
        process.toHandle().destroy();
    }

    void awaitEnd() throws InterruptedException {
        if (!process.waitFor(15, SECONDS)) throw new AssertionError("the server did not end within 15 s");
        Check.same("the exit code of the server", process.exitValue(), 0);
    }

    @Override
    public void close() {
        process.destroyForcibly();
    }
}
