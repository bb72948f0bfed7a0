package pail.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.protobuf.StatusProto;
import java.util.List;

/** Why a call failed. */
public final class Errors {
    private Errors() {}

    /** The reason of a failed call and its facts; empty where the error is not the server's own. */
    public static ErrorInfo infoOf(Throwable error) {
        var status = StatusProto.fromThrowable(error);
        return status == null ? ErrorInfo.getDefaultInstance() : infoIn(status.getDetailsList());
    }

    /** The same of a google.rpc.Status, as an operation of a Pipeline or a request on a Link fails with. */
    public static ErrorInfo infoIn(List<Any> details) {
        for (var any : details) {
            if (any.is(ErrorInfo.class)) {
                try {
                    return any.unpack(ErrorInfo.class);
                } catch (InvalidProtocolBufferException broken) {
                    break;
                }
            }
        }
        return ErrorInfo.getDefaultInstance();
    }
}
