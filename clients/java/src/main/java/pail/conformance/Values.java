package pail.conformance;

import com.google.protobuf.ByteString;
import io.grpc.StatusException;
import pail.v1.Value;

/** Each kind of value comes back as it was put, to the bit. */
final class Values {
    private static final String BUCKET = "java-values";

    private Values() {}

    static void run(Client client, String address) throws StatusException {
        client.created(BUCKET);

        for (var text : new String[] {"", "two loaves", "héllo, 世界 🪣", "\0"}) {
            through(client, Value.newBuilder().setText(text).build());
        }

        var bytes = new byte[256];
        for (var n = 0; n < bytes.length; n++) bytes[n] = (byte) n;
        through(client, Value.newBuilder().setData(ByteString.copyFrom(bytes)).build());
        through(client, Value.newBuilder().setData(ByteString.EMPTY).build());

        for (var integer : new long[] {0, -1, Long.MIN_VALUE, Long.MAX_VALUE}) {
            through(client, Value.newBuilder().setInteger(integer).build());
        }

        var payload = Double.longBitsToDouble(0x7ff8_0000_dead_beefL);
        var infinity = Double.POSITIVE_INFINITY;
        for (var number : new double[] {0.0, -0.0, Double.MIN_VALUE, infinity, -infinity, payload}) {
            through(client, Value.newBuilder().setNumber(number).build());
        }

        through(client, Value.newBuilder().setFlag(false).build());
        through(client, Value.newBuilder().setFlag(true).build());
    }

    /** The bytes of the message hold the kind, and the bits of a NaN, which all are equal to Value.equals. */
    private static void through(Client client, Value value) throws StatusException {
        client.put(BUCKET, "k", value);
        var found = client.get(BUCKET, "k").getEntry().getValue();
        Check.same("the bytes of " + value, found.toByteString(), value.toByteString());
    }
}
