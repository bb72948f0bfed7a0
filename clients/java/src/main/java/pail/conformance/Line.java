package pail.conformance;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;

/** A line to a server that can be cut: its connections break, and new ones come to nothing until it is mended. */
final class Line implements AutoCloseable {
    private final ServerSocket listener = new ServerSocket(0, 0, InetAddress.getLoopbackAddress());
    private final String host;
    private final int port;
    private final List<Socket> ends = new ArrayList<>();
    private boolean cut;
    private int connections;

    Line(String address) throws IOException {
        var colon = address.lastIndexOf(':');
        host = address.substring(0, colon);
        port = Integer.parseInt(address.substring(colon + 1));
        Threads.daemon(this::accept);
    }

    String address() {
        return "127.0.0.1:" + listener.getLocalPort();
    }

    /** How many were let through. */
    synchronized int connections() {
        return connections;
    }

    synchronized void cut() throws IOException {
        cut = true;
        for (var end : ends) end.close();
        ends.clear();
    }

    synchronized void mend() {
        cut = false;
    }

    private void accept() {
        try {
            while (true) connect(listener.accept());
        } catch (IOException closed) {
            // By `close`.
        }
    }

    private synchronized void connect(Socket client) throws IOException {
        if (cut) {
            client.close();
            return;
        }
        var server = new Socket(host, port);
        ends.add(client);
        ends.add(server);
        connections++;
        Threads.daemon(() -> pump(client, server));
        Threads.daemon(() -> pump(server, client));
    }

    /** Closes both ends when one is at its end. */
    private static void pump(Socket from, Socket to) {
        try (from; to) {
            from.getInputStream().transferTo(to.getOutputStream());
        } catch (IOException broken) {
            // The other end sees it too.
        }
    }

    @Override
    public void close() throws IOException {
        cut();
        listener.close();
    }
}
