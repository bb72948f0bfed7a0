package pail.client;

import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import io.grpc.ManagedChannel;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.io.InputStreamReader;
import java.util.Map;

/** How to connect. Copy it, and put service_config.json among your resources. */
public final class Connect {
    private Connect() {}

    /** A channel to the server at this address. */
    public static ManagedChannel to(String address) {
        return builder(address).build();
    }

    /** The same, for those who want to set more. */
    public static NettyChannelBuilder builder(String address) {
        return NettyChannelBuilder.forTarget(address)
                .usePlaintext()
                .defaultServiceConfig(serviceConfig())
                .keepAliveTime(10, SECONDS)
                .keepAliveTimeout(5, SECONDS);
    }

    /** gRPC wants a map with numbers as doubles, which is what Gson makes of JSON. */
    private static Map<String, ?> serviceConfig() {
        var json = Connect.class.getResourceAsStream("/service_config.json");
        return new Gson().fromJson(new InputStreamReader(json, UTF_8), new TypeToken<Map<String, ?>>() {});
    }
}
