package pail.conformance;

import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.rpc.ErrorInfo;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeoutException;
import pail.client.Errors;

/** What must hold, and what to say where it does not. */
final class Check {
    /** Longer than anything takes that the steps wait for, and as long as a link may take to be missed. */
    static final int SOON_S = 5;

    /** A fact that must be there, whatever it is. */
    static final String ANY = "*";

    private Check() {}

    static void holds(String what, boolean condition) {
        if (!condition) throw new AssertionError(what + ": it does not hold");
    }

    static void same(String what, Object actual, Object wanted) {
        if (!Objects.equals(actual, wanted)) throw new AssertionError(what + ": " + actual + " instead of " + wanted);
    }

    /** The next message of a stream; null after the last. */
    static <T> T next(BlockingClientCall<?, T> stream) throws StatusException, InterruptedException {
        try {
            return stream.read(SOON_S, SECONDS);
        } catch (TimeoutException late) {
            throw new AssertionError("no message and no end within " + SOON_S + " s", late);
        }
    }

    /** The call must fail, with this code, this reason, and these facts among the metadata. */
    static ErrorInfo refused(Status.Code code, String reason, Map<String, ?> facts, Callable<?> call) throws Exception {
        Object answer;
        try {
            answer = call.call();
        } catch (StatusException error) {
            var info = Errors.infoOf(error);
            is(info, error.getStatus().getCode(), code, reason, facts);
            return info;
        }
        throw new AssertionError(reason + ": it was not refused, but answered: " + answer);
    }

    /** The same of what a google.rpc.Status within a stream says. */
    static void is(ErrorInfo info, Status.Code actual, Status.Code code, String reason, Map<String, ?> facts) {
        same("the code and the reason", actual + "/" + info.getReason(), code + "/" + reason);
        same(reason + ": the domain", info.getDomain(), "pail");
        facts.forEach((key, fact) -> {
            var found = info.getMetadataMap().get(key);
            if (!fact.equals(ANY) || found == null) same(reason + ": " + key, found, fact.toString());
        });
    }
}
