// The session of the guide: a bucket, an entry, and their ends.

import assert from 'node:assert/strict';

import { status } from '@grpc/grpc-js';

import { call } from '../pail.js';
import { refused } from './support.js';

export async function session(client) {
  const bucket = 'node-shopping';

  const first = await call(client, 'create', { bucket });
  assert.equal(first.created, true);
  const again = await call(client, 'create', { bucket });
  assert.equal(again.created, false);
  assert.equal(again.bucket.id, first.bucket.id);
  await refused(call(client, 'lookup', { bucket: 'node-nobody' }), status.NOT_FOUND, 'BUCKET_NOT_FOUND');

  await call(client, 'put', { bucket, key: 'milk', value: { integer: '3' } });
  const { entry } = await call(client, 'get', { bucket, key: 'milk' });
  assert.equal(entry.value.integer, '3');
  await refused(call(client, 'get', { bucket, key: 'eggs' }), status.NOT_FOUND, 'KEY_NOT_FOUND');

  const removed = await call(client, 'delete', { bucket, key: 'milk' });
  assert.equal(removed.entry.value.integer, '3');
  const absent = await call(client, 'delete', { bucket, key: 'milk' });
  assert.equal(absent.entry, null);

  await call(client, 'stop', { bucket });
  await refused(call(client, 'lookup', { bucket }), status.NOT_FOUND, 'BUCKET_NOT_FOUND');
  const namesake = await call(client, 'create', { bucket });
  assert.equal(namesake.created, true);
  assert.notEqual(namesake.bucket.id, first.bucket.id);
}
