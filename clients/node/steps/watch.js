// Watching by name, and by prefix with a connection that breaks.

import assert from 'node:assert/strict';

import { status } from '@grpc/grpc-js';

import { call, connect } from '../pail.js';
import { resumingWatch } from '../watch.js';
import { Fake, SILENCE, refusal } from './fake.js';
import { Proxy } from './proxy.js';
import { created, messages, next, refused, rest } from './support.js';

export async function watchByName(client) {
  const [bucket, nobody] = ['node-watched', 'node-nobody'];
  const id = await created(client, bucket);

  const watch = messages(client.watch({ buckets: [bucket, nobody] }));
  const { started } = await next(watch);
  assert.deepEqual(started.monitors.map((m) => [m.bucket, m.bucket_id]), [[bucket, id], [nobody, '0']]);
  const [ref, absentRef] = started.monitors.map((m) => m.ref);
  assert.notEqual(ref, absentRef);
  const noproc = await next(watch);
  assert.deepEqual(downs([noproc]), [[absentRef, nobody, '0', 'REASON_NOPROC', '']]);
  assert.ok((await next(watch)).synced);

  await call(client, 'stop', { bucket, reason: 'REASON_CRASHED', detail: 'why' });
  // The end is OK: anything else would be thrown here.
  assert.deepEqual(downs(await rest(watch)), [[ref, bucket, id, 'REASON_CRASHED', 'why']]);
}

/** The DOWNs among responses; there must be nothing else. */
function downs(responses) {
  return responses.flatMap((response) => response.events.events).map(({ down }) => {
    return [down.ref, down.bucket, down.bucket_id, down.reason, down.detail];
  });
}

export async function watchByPrefix(client, address) {
  const prefix = 'node-room-';
  const early = await created(client, `${prefix}early`);
  await inOrder(client, prefix, early);
  await overACut(client, address, prefix);
  await overEveryEnd();
}

/** What was missed while there was no connection is told after it, once. */
async function overACut(client, address, prefix) {
  const proxy = await Proxy.to(address);
  const behind = connect(proxy.address);
  const abort = new AbortController();
  const resets = [];
  const options = { onReset: (registryId) => resets.push(registryId), signal: abort.signal };
  const events = resumingWatch(behind, { prefix }, options);
  try {
    assert.deepEqual(brief(await next(events)), ['created', `${prefix}early`, true]);
    await created(client, `${prefix}live`);
    await call(client, 'stop', { bucket: `${prefix}live` });
    assert.deepEqual(brief(await next(events)), ['created', `${prefix}live`, false]);
    assert.deepEqual(brief(await next(events)), ['down', `${prefix}live`, 'REASON_NORMAL']);

    await proxy.cut();
    await created(client, `${prefix}late`);
    await call(client, 'stop', { bucket: `${prefix}early`, reason: 'REASON_KILLED' });
    await created(client, `${prefix}early`);
    await proxy.mend();

    assert.deepEqual(brief(await next(events)), ['created', `${prefix}late`, false]);
    assert.deepEqual(brief(await next(events)), ['down', `${prefix}early`, 'REASON_KILLED']);
    assert.deepEqual(brief(await next(events)), ['created', `${prefix}early`, false]);
    // What comes after it shows that nothing came twice.
    await created(client, `${prefix}last`);
    assert.deepEqual(brief(await next(events)), ['created', `${prefix}last`, false]);
    assert.equal(proxy.connections, 2);
    assert.deepEqual(resets, []);
  } finally {
    abort.abort();
    behind.close();
    await proxy.close();
  }
}

/** What was there, synced, then what happens: as the responses say it. */
async function inOrder(client, prefix, early) {
  const stream = client.watch({ prefix });
  const watch = messages(stream);
  assert.deepEqual((await next(watch)).started.monitors, []);
  const snapshot = await next(watch);
  assert.deepEqual(snapshot.events.events.map(brief), [['created', `${prefix}early`, true]]);
  assert.equal(snapshot.events.events[0].created.bucket_id, early);
  const { synced, revision } = await next(watch);
  assert.ok(synced);

  await created(client, `${prefix}brief`);
  await call(client, 'stop', { bucket: `${prefix}brief` });
  const live = [];
  while (live.length < 2) live.push(...(await next(watch)).events.events);
  assert.deepEqual(live.map((event) => event.event), ['created', 'down']);
  const revisions = live.map((event) => BigInt(event[event.event].revision));
  assert.ok(BigInt(revision) < revisions[0] && revisions[0] < revisions[1], `revisions ${revision}, ${revisions}`);
  stream.cancel();
}

/** The ends that a real server does not give when it is asked to, and from where the watch goes on after each. */
async function overEveryEnd() {
  const begin = (registry_id, revision) => ({ revision, started: { registry_id } });
  const synced = (revision) => ({ revision, synced: {} });
  const fake = await Fake.start(
    [begin('one', 0), synced(7), SILENCE],
    [begin('one', 7), refusal(status.RESOURCE_EXHAUSTED, 'WATCHER_LAGGED', { resume_revision: '9' })],
    [refusal(status.UNAVAILABLE, 'OVERLOADED')],
    [refusal(status.OUT_OF_RANGE, 'REVISION_COMPACTED', { oldest_revision: '20' })],
    [begin('one', 0), refusal(status.UNAVAILABLE, 'DRAINING')],
    [begin('two', 0), synced(30), refusal(status.INTERNAL, 'PANIC')],
  );
  const client = connect(fake.address);
  try {
    const resets = [];
    // Three of them are longer than a connection takes on a machine that has much to do.
    const request = { prefix: '', heartbeat: { seconds: 1 } };
    const events = resumingWatch(client, request, { onReset: (registryId) => resets.push(registryId) });
    await refused(events.next(), status.INTERNAL, 'PANIC');
    const places = fake.asked.map((asked) => [asked.registry_id, asked.after_revision]);
    const anew = [undefined, undefined];
    assert.deepEqual(places, [anew, ['one', '7'], ['one', '9'], ['one', '9'], anew, anew]);
    assert.deepEqual(resets, ['one', 'two']);
  } finally {
    client.close();
    fake.close();
  }
}

/** An event in short. */
export function brief({ event, created, down }) {
  return event === 'created' ? [event, created.bucket, created.initial] : [event, down.bucket, down.reason];
}
