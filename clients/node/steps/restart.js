// A server that stops and comes back with nothing: the watch says so, and goes on with what is there.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { status } from '@grpc/grpc-js';

import { call, connect } from '../pail.js';
import { resumingWatch } from '../watch.js';
import { Fake } from './fake.js';
import { created, messages, next, refused, setting, within } from './support.js';
import { brief } from './watch.js';

export async function serverRestart() {
  await overARestart();
  await whileUnavailable();
}

async function overARestart() {
  let server = await Server.start('127.0.0.1:0');
  const { address } = server;
  const client = connect(address);
  const abort = new AbortController();
  try {
    await created(client, 'node-before');
    const resets = [];
    const options = { onReset: (registryId) => resets.push(registryId), signal: abort.signal };
    const events = resumingWatch(client, { prefix: 'node-' }, options);
    assert.deepEqual(brief(await next(events)), ['created', 'node-before', true]);
    const plain = messages(client.watch({ prefix: 'node-', skip_initial: true }));
    const { started } = await next(plain);
    const { synced, revision } = await next(plain);
    assert.ok(synced);

    const stopped = server.stop();
    assert.deepEqual(brief((await next(plain)).events.events[0]), ['down', 'node-before', 'REASON_SHUTDOWN']);
    assert.ok((await next(plain)).draining);
    await refused(next(plain), status.UNAVAILABLE, 'DRAINING');
    assert.deepEqual(brief(await next(events)), ['down', 'node-before', 'REASON_SHUTDOWN']);
    await stopped;
    assert.deepEqual(resets, []);

    server = await Server.start(address);
    await within(10_000, ready(client), 'connection');
    await created(client, 'node-after');
    const resume = { prefix: 'node-', after_revision: revision, registry_id: started.registry_id };
    await refused(next(messages(client.watch(resume))), status.OUT_OF_RANGE, 'REVISION_UNKNOWN');
    // Whether it was there as the new snapshot began is a matter of the back-off.
    assert.deepEqual(brief(await within(10_000, next(events), 'event')).slice(0, 2), ['created', 'node-after']);
    assert.equal(resets.length, 1);
    assert.notEqual(resets[0], started.registry_id);
  } finally {
    abort.abort();
    client.close();
    await server.stop();
  }
}

/** What may be done twice is tried as often as the service config says, and what may not is tried once. */
async function whileUnavailable() {
  const fake = await Fake.start();
  const client = connect(fake.address);
  try {
    const codes = [];
    for (const method of ['get', 'put']) await call(client, method, {}).catch((error) => codes.push(error.code));
    assert.deepEqual(codes, [status.UNAVAILABLE, status.UNAVAILABLE]);
    assert.deepEqual(fake.calls, [...Array(5).fill('get'), 'put']);
  } finally {
    client.close();
    fake.close();
  }
}

/** The channel has found the server. */
function ready(client) {
  return new Promise((resolve, reject) => {
    client.waitForReady(Date.now() + 10_000, (error) => (error ? reject(error) : resolve()));
  });
}

class Server {
  static async start(listen) {
    const server = new Server();
    const options = ['serve', '--listen', listen, '--log-format', 'json'];
    server.process = spawn(setting('PAIL_BIN'), options, { stdio: ['ignore', 'ignore', 'pipe'] });
    server.exited = once(server.process, 'exit');
    server.address = await within(10_000, server.#listening(), 'address of the server');
    return server;
  }

  /** The address that its log tells; what comes after that is read too, so that the server never waits. */
  #listening() {
    return new Promise((resolve, reject) => {
      this.exited.then(() => reject(new Error('the server has ended')), reject);
      createInterface({ input: this.process.stderr }).on('line', (line) => {
        const { fields } = JSON.parse(line);
        if (fields.message === 'listening') resolve(fields.address);
      });
    });
  }

  async stop() {
    this.process.kill('SIGTERM');
    try {
      await within(15_000, this.exited, 'end of the server');
    } finally {
      this.process.kill('SIGKILL');
    }
  }
}
