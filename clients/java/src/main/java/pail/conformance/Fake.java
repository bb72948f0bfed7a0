package pail.conformance;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import pail.v1.BucketServiceGrpc.BucketServiceImplBase;
import pail.v1.GetRequest;
import pail.v1.GetResponse;
import pail.v1.PutRequest;
import pail.v1.PutResponse;
import pail.v1.WatchRequest;
import pail.v1.WatchResponse;

/**
 * A server that answers as it is told: for what a client must bear, and a real server does too rarely to wait for.
 *
 * <p>Get and Put are unavailable. Each Watch is answered by the next script.
 */
final class Fake extends BucketServiceImplBase implements AutoCloseable {
    /** Responses, and how the stream ends; it does not where that is null. */
    record Script(List<WatchResponse> responses, Throwable end) {}

    private final Queue<Script> scripts;
    private final List<WatchRequest> asked = Collections.synchronizedList(new ArrayList<>());
    private final List<String> calls = Collections.synchronizedList(new ArrayList<>());
    private final Server server;

    Fake(Script... scripts) throws IOException {
        this.scripts = new ArrayDeque<>(List.of(scripts));
        var address = new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
        server = NettyServerBuilder.forAddress(address).addService(this).build().start();
    }

    String address() {
        return "127.0.0.1:" + server.getPort();
    }

    /** The Watches, in their order. */
    List<WatchRequest> asked() {
        return List.copyOf(asked);
    }

    /** The other calls, in their order. */
    List<String> calls() {
        return List.copyOf(calls);
    }

    /** An error as pail gives it. */
    static Throwable refusal(Status.Code code, String reason, Map<String, String> facts) {
        var info = ErrorInfo.newBuilder().setDomain("pail").setReason(reason).putAllMetadata(facts).build();
        var status = com.google.rpc.Status.newBuilder().setCode(code.value()).addDetails(Any.pack(info)).build();
        return StatusProto.toStatusException(status);
    }

    @Override
    public void get(GetRequest request, StreamObserver<GetResponse> answer) {
        calls.add("Get");
        answer.onError(Status.UNAVAILABLE.asException());
    }

    @Override
    public void put(PutRequest request, StreamObserver<PutResponse> answer) {
        calls.add("Put");
        answer.onError(Status.UNAVAILABLE.asException());
    }

    @Override
    public synchronized void watch(WatchRequest request, StreamObserver<WatchResponse> answer) {
        asked.add(request);
        var script = scripts.remove();
        script.responses().forEach(answer::onNext);
        if (script.end() != null) answer.onError(script.end());
    }

    @Override
    public void close() {
        server.shutdownNow();
    }
}
