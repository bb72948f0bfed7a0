package pail.conformance;

/** An environment variable with which clients/run says where something is. */
final class Setting {
    private Setting() {}

    static String of(String name) {
        var value = System.getenv(name);
        if (value == null || value.isEmpty()) throw new AssertionError(name + " is not set");
        return value;
    }
}
