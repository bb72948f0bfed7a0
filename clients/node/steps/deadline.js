// Calls that are given up, and a server that answers all the same.

import assert from 'node:assert/strict';

import { status } from '@grpc/grpc-js';

import { call } from '../pail.js';
import { created, messages, next } from './support.js';

/** The code with which the stream fails. */
function codeOf(watch) {
  return next(watch, 'end of the watch').then(
    (response) => assert.fail(`the watch went on: ${JSON.stringify(response)}`),
    (error) => status[error.code] ?? assert.fail(error.message),
  );
}

export async function deadlineAndCancel(client) {
  const bucket = 'node-patient';
  await created(client, bucket);

  const short = messages(client.watch({ buckets: [bucket] }, { deadline: Date.now() + 500 }));
  assert.ok((await next(short)).started);
  assert.ok((await next(short)).synced);
  assert.equal(await codeOf(short), 'DEADLINE_EXCEEDED');

  const stream = client.watch({ buckets: [bucket] });
  const cancelled = messages(stream);
  assert.ok((await next(cancelled)).started);
  assert.ok((await next(cancelled)).synced);
  stream.cancel();
  assert.equal(await codeOf(cancelled), 'CANCELLED');

  assert.equal((await call(client, 'lookup', { bucket })).bucket.name, bucket);
}
