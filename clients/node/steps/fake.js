// A server that answers as it is told: for what a client must bear, and a real server does too rarely to wait for.

import { once } from 'node:events';

import grpc from '@grpc/grpc-js';

import { BucketService, definitions } from '../pail.js';

export const SILENCE = Symbol('silence');

/** An error as pail gives it. */
export function refusal(code, reason, facts = {}) {
  const info = definitions['google.rpc.ErrorInfo'].serialize({ domain: 'pail', reason, metadata: facts });
  const details = [{ type_url: 'type.googleapis.com/google.rpc.ErrorInfo', value: info }];
  const status = definitions['google.rpc.Status'].serialize({ code, message: 'as told', details });
  const metadata = new grpc.Metadata();
  metadata.set('grpc-status-details-bin', status);
  return { code, details: 'as told', metadata };
}

/** Get and Put are unavailable. Each Watch is answered by the next list: of responses, and of how it ends. */
export class Fake {
  #server = new grpc.Server();
  asked = [];
  calls = [];

  static async start(...watches) {
    const fake = new Fake();
    fake.#server.addService(BucketService.service, {
      get: (call, answer) => fake.#unavailable('get', answer),
      put: (call, answer) => fake.#unavailable('put', answer),
      watch: (call) => fake.#watch(call, watches.shift()),
    });
    const credentials = grpc.ServerCredentials.createInsecure();
    fake.address = await new Promise((resolve, reject) => {
      const bound = (error, port) => (error ? reject(error) : resolve(`127.0.0.1:${port}`));
      fake.#server.bindAsync('127.0.0.1:0', credentials, bound);
    });
    return fake;
  }

  #unavailable(method, answer) {
    this.calls.push(method);
    answer({ code: grpc.status.UNAVAILABLE, details: 'not now' });
  }

  async #watch(call, script) {
    this.asked.push(call.request);
    for (const response of script.slice(0, -1)) {
      if (!call.write(response)) await once(call, 'drain');
    }
    if (script.at(-1) !== SILENCE) call.emit('error', script.at(-1));
  }

  close() {
    this.#server.forceShutdown();
  }
}
