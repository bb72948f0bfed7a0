package pail.conformance;

import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.StatusException;
import io.grpc.stub.ClientCalls;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;

/** A unary call of bytes: what no generated code would send. */
final class RawCall {
    private static final MethodDescriptor.Marshaller<byte[]> BYTES = new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] bytes) {
            return new ByteArrayInputStream(bytes);
        }

        @Override
        public byte[] parse(InputStream stream) {
            try {
                return stream.readAllBytes();
            } catch (IOException impossible) {
                throw new UncheckedIOException(impossible); // It is in memory.
            }
        }
    };

    private RawCall() {}

    static byte[] send(Channel channel, String method, byte[] bytes) throws InterruptedException, StatusException {
        var descriptor = MethodDescriptor.newBuilder(BYTES, BYTES)
                .setType(MethodType.UNARY)
                .setFullMethodName("pail.v1.BucketService/" + method)
                .build();
        return ClientCalls.blockingV2UnaryCall(
                channel, descriptor, CallOptions.DEFAULT.withDeadlineAfter(5, SECONDS), bytes);
    }
}
