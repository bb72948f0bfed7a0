package pail.conformance;

/** Threads that don't keep the program from its end. */
final class Threads {
    private Threads() {}

    static Thread daemon(Runnable task) {
        var thread = new Thread(task);
        thread.setDaemon(true);
        thread.start();
        return thread;
    }
}
