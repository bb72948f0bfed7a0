// A client of pail: what @grpc/proto-loader makes of the proto, the options of its channel, and how to read an error.
// Copy it, and let the two URLs point to your copies.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const PROTO = new URL('../../proto', import.meta.url);
const SERVICE_CONFIG = new URL('../service_config.json', import.meta.url);

// `longs: String`, since a JavaScript number holds no more than 53 bits of an id, a version or an integer.
export const definitions = loader.loadSync(['pail/v1/pail.proto', 'google/rpc/error_details.proto'], {
  includeDirs: [fileURLToPath(PROTO)],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});

export const { BucketService } = grpc.loadPackageDefinition(definitions).pail.v1;

/** A client of the server at this address, with a connection of its own. */
export function connect(address) {
  return new BucketService(address, grpc.credentials.createInsecure(), {
    'grpc.service_config': readFileSync(SERVICE_CONFIG, 'utf8'),
    'grpc.keepalive_time_ms': 10_000,
    'grpc.keepalive_timeout_ms': 5_000,
    // If unset it grows to two minutes, and a server that is back is found that late.
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 5_000,
    'grpc.use_local_subchannel_pool': 1,
  });
}

/** Calls a unary method: `await call(client, 'put', { bucket, key, value: { integer: '3' } })`. */
export function call(client, method, request, timeoutMs = 5_000) {
  return new Promise((resolve, reject) => {
    const done = (error, response) => (error ? reject(error) : resolve(response));
    client[method](request, { deadline: Date.now() + timeoutMs }, done);
  });
}

/** Why a call failed, `{ reason, domain, metadata }`; undefined where the error is not the server's own. */
export function reasonOf(error) {
  const [bytes] = error.metadata?.get('grpc-status-details-bin') ?? [];
  return bytes && reasonIn(definitions['google.rpc.Status'].deserialize(bytes));
}

/** The same of a google.rpc.Status, as an operation of a Pipeline or a request on a Link fails with. */
export function reasonIn(status) {
  const info = status.details.find((any) => any.type_url === 'type.googleapis.com/google.rpc.ErrorInfo');
  return info && definitions['google.rpc.ErrorInfo'].deserialize(info.value);
}
