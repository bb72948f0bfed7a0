package pail.conformance;

/** One step of the conformance: it returns, or throws what was wrong. */
@FunctionalInterface
interface Step {
    void run(Client client, String address) throws Exception;
}
