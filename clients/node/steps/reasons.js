// Every error reason that a client can cause, read from the details of the status. DRAINING is in restart.js.

import assert from 'node:assert/strict';

import { status } from '@grpc/grpc-js';

import { call, connect, reasonOf } from '../pail.js';
import { ANY, created, messages, next, refused, refusedIn, setting } from './support.js';

export async function reasons(client, address) {
  await ofRequests(client);
  await ofEntries(client);
  await ofStreams(client);
  await withClient(address, ofBytes);
  const small = setting('PAIL_SMALL');
  await withClient(small, ofFullServer);
  await withClient(small, ofHistory);
  await withClient(small, ofLongStreams);
}

async function withClient(address, use) {
  const client = connect(address);
  try {
    await use(client);
  } finally {
    client.close();
  }
}

async function ofRequests(client) {
  const bucket = 'node-reasons';
  const bad = (method, request, reason, facts) =>
    refused(call(client, method, request), status.INVALID_ARGUMENT, reason, facts);
  await created(client, bucket);

  await bad('create', { bucket: '' }, 'INVALID_NAME', { field: 'bucket', limit: '255', actual: '0' });
  await bad('get', { bucket, key: '' }, 'INVALID_KEY', { field: 'key', limit: '1024', actual: '0' });
  await bad('put', { bucket, key: 'k' }, 'INVALID_VALUE', { field: 'value' });
  await bad('list', { page_size: -1 }, 'INVALID_OPTION', { field: 'page_size' });
  await bad('list', { page_token: 'no token' }, 'INVALID_PAGE_TOKEN', { field: 'page_token' });
  const large = { data: Buffer.alloc(1_048_577) };
  await bad('put', { bucket, key: 'k', value: large }, 'TOO_LARGE', { limit: '1048576', actual: '1048577' });
}

async function ofEntries(client) {
  const bucket = 'node-reasons';
  const id = (await call(client, 'lookup', { bucket })).bucket.id;

  const nobody = call(client, 'get', { bucket: 'node-nobody', key: 'k' });
  await refused(nobody, status.NOT_FOUND, 'BUCKET_NOT_FOUND', { bucket: 'node-nobody' });
  const namesake = call(client, 'get', { bucket, bucket_id: '1', key: 'k' });
  await refused(namesake, status.NOT_FOUND, 'BUCKET_NOT_FOUND', { bucket });
  const nothing = call(client, 'get', { bucket, key: 'bread' });
  await refused(nothing, status.NOT_FOUND, 'KEY_NOT_FOUND', { bucket, key: 'bread' });

  const { version } = await call(client, 'put', { bucket, key: 'text', value: { text: 'one' } });
  const sum = call(client, 'add', { bucket, key: 'text', delta: '1' });
  await refused(sum, status.FAILED_PRECONDITION, 'WRONG_TYPE', { bucket, key: 'text' });
  const stale = { bucket, bucket_id: id, key: 'text', value: { text: 'two' }, expected_version: '99' };
  const actual = { actual_version: version };
  await refused(call(client, 'put', stale), status.FAILED_PRECONDITION, 'VERSION_MISMATCH', actual);

  await call(client, 'put', { bucket, key: 'most', value: { integer: '9223372036854775807' } });
  const more = call(client, 'add', { bucket, key: 'most', delta: '1' });
  await refused(more, status.OUT_OF_RANGE, 'INTEGER_OVERFLOW', { bucket, key: 'most' });
}

async function ofStreams(client) {
  const bucket = 'node-linked';
  const id = await created(client, bucket); // It is also the revision.

  const unknown = { after_revision: { after_revision: '1' }, registry_id: { after_revision: id, registry_id: 'another' } };
  for (const [field, resume] of Object.entries(unknown)) {
    const watch = messages(client.watch({ prefix: 'node-', ...resume }));
    await refused(next(watch), status.OUT_OF_RANGE, 'REVISION_UNKNOWN', { field });
  }

  const link = client.link();
  const answers = messages(link);
  link.write({ id: '1', link: { bucket, mode: 'LINK_MODE_MUST_CREATE' } });
  const answer = await next(answers);
  assert.equal(answer.id, '1');
  refusedIn(answer.error, status.ALREADY_EXISTS, 'BUCKET_EXISTS', { bucket, bucket_id: id });

  link.write({ id: '2', link: { bucket, mode: 'LINK_MODE_MUST_EXIST' } });
  assert.equal((await next(answers)).linked.bucket_id, id);
  await call(client, 'stop', { bucket, reason: 'REASON_KILLED', detail: 'why' });
  const { exit } = await next(answers);
  assert.deepEqual(exit, { bucket, bucket_id: id, reason: 'REASON_KILLED', detail: 'why' });
  await refused(next(answers), status.ABORTED, 'LINKED_EXIT', { bucket, bucket_id: id });
}

/** Below the generated code: bytes that are no message, and a method that is not there. */
async function ofBytes(client) {
  const send = (method, bytes) => new Promise((resolve, reject) => {
    const done = (error, response) => (error ? reject(error) : resolve(response));
    const options = { deadline: Date.now() + 5_000 };
    const same = (buffer) => buffer;
    client.makeUnaryRequest(`/pail.v1.BucketService/${method}`, same, same, bytes, options, done);
  });
  await refused(send('Create', Buffer.from([0xff, 0xff])), status.INVALID_ARGUMENT, 'INVALID_MESSAGE');
  await refused(send('Eat', Buffer.alloc(0)), status.UNIMPLEMENTED, 'UNIMPLEMENTED');
}

/** Does it until it is refused, with this reason. */
async function untilRefused(attempt, reason, timesMax = 5_000) {
  for (let n = 0; n < timesMax; n += 1) {
    try {
      await attempt(n);
    } catch (error) {
      return refused(Promise.reject(error), status.RESOURCE_EXHAUSTED, reason, { limit: ANY });
    }
  }
  return assert.fail(`${reason} was expected, and ${timesMax} were not refused`);
}

async function ofFullServer(client) {
  const bucket = 'node-full';
  await call(client, 'create', { bucket });
  const put = (key, value) => call(client, 'put', { bucket, key, value });
  await untilRefused((n) => put(`k${n}`, { flag: true }), 'TOO_MANY_ENTRIES');
  await untilRefused((n) => put('k0', { data: Buffer.alloc(4_096 * 2 ** n) }), 'OUT_OF_MEMORY', 9);
  await call(client, 'stop', { bucket });

  const crowd = [];
  await untilRefused(async (n) => {
    await call(client, 'create', { bucket: `node-crowd-${n}` });
    crowd.push(`node-crowd-${n}`);
  }, 'TOO_MANY_BUCKETS');
  for (const name of crowd) await call(client, 'stop', { bucket: name });
}

/** Both are on a history that is short: who does not read falls behind, and can't go on where it was. */
async function ofHistory(client) {
  const unread = client.watch({ prefix: 'node-lag' });
  const lagging = messages(unread);
  const { started } = await next(lagging);
  const synced = await next(lagging);
  assert.ok(synced.synced);

  // Far more than HTTP/2 and this process hold for a stream that nobody reads.
  for (let n = 0; n < 500; n += 1) {
    const bucket = `node-lag-${n}`;
    await call(client, 'create', { bucket });
    await call(client, 'stop', { bucket, detail: 'd'.repeat(1_024) });
  }
  let seen = '0';
  const end = (async () => {
    for (let response; (response = await next(lagging)); ) seen = response.revision;
  })();
  const error = await refused(end, status.RESOURCE_EXHAUSTED, 'WATCHER_LAGGED');
  assert.equal(reasonOf(error).metadata.resume_revision, seen);

  const resume = { prefix: 'node-', after_revision: synced.revision, registry_id: started.registry_id };
  const compacted = await refused(next(messages(client.watch(resume))), status.OUT_OF_RANGE, 'REVISION_COMPACTED');
  assert.ok(BigInt(reasonOf(compacted).metadata.oldest_revision) > BigInt(synced.revision));
}

async function ofLongStreams(client) {
  const open = [];
  try {
    await untilRefused(async () => {
      open.push(client.watch({ prefix: 'node-', skip_initial: true }));
      assert.ok((await next(messages(open.at(-1)))).started);
    }, 'TOO_MANY_STREAMS');
  } finally {
    for (const stream of open) stream.cancel();
  }
}
