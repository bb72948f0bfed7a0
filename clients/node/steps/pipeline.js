// Ten thousand operations on one stream, read while they are written.

import assert from 'node:assert/strict';
import { once } from 'node:events';

import { status } from '@grpc/grpc-js';

import { reasonIn } from '../pail.js';
import { messages, next } from './support.js';

const OPS = 10_000;
const OPS_A_MESSAGE = 250;
const FIRST_ID = 1_000;
const bucket = 'node-pipeline';

/** The operation at this place. Those after the Create are of the bucket that it made. */
function op(n) {
  const of = { id: FIRST_ID + n, bucket_id_from: FIRST_ID };
  if (n === 0) return { id: FIRST_ID, create: { bucket } };
  if (n % 100 === 0) return { ...of, bucket_id_from: 1, get: { bucket, key: 'k' } };
  switch (n % 4) {
    case 1: return { ...of, put: { bucket, key: `k${n}`, value: { integer: n } } };
    case 2: return { ...of, get: { bucket, key: `k${n - 1}` } };
    case 3: return { ...of, get: { bucket, key: 'nothing' } };
    default: return { ...of, add: { bucket, key: 'total', delta: 1 } };
  }
}

/** Its answer, in short. */
function expected(n, id, total) {
  if (n === 0) return ['create', true];
  if (n % 100 === 0) return ['INVALID_ARGUMENT', 'INVALID_OPTION'];
  switch (n % 4) {
    case 1: return ['put', id];
    case 2: return ['get', String(n - 1)];
    case 3: return ['NOT_FOUND', 'KEY_NOT_FOUND'];
    default: return ['add', String(total)];
  }
}

function brief({ result, error, create, put, get, add }) {
  switch (result) {
    case 'create': return [result, create.created];
    case 'put': return [result, put.bucket_id];
    case 'get': return [result, get.entry.value.integer];
    case 'add': return [result, add.value];
    default: return [status[error.code], reasonIn(error)?.reason];
  }
}

async function write(stream) {
  for (let n = 0; n < OPS; n += OPS_A_MESSAGE) {
    const ops = Array.from({ length: OPS_A_MESSAGE }, (_, i) => op(n + i));
    // Held back by flow control, as HTTP/2 has it.
    if (!stream.write({ ops })) await once(stream, 'drain');
  }
  stream.end();
}

async function read(stream) {
  const answers = messages(stream);
  let [n, id, total] = [0, undefined, 0];
  for (let response; (response = await next(answers, 'results')); ) {
    for (const result of response.results) {
      id ??= result.create.bucket.id;
      if (n % 4 === 0 && n % 100 !== 0) total += 1;
      assert.equal(result.id, String(FIRST_ID + n));
      assert.deepEqual(brief(result), expected(n, id, total), `operation ${n}`);
      n += 1;
    }
  }
  assert.equal(n, OPS);
}

export async function pipeline(client) {
  const stream = client.pipeline();
  await Promise.all([write(stream), read(stream)]);
}
