// A link that is closed leaves its bucket alive; one whose client is killed does not.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

import { call, connect } from '../pail.js';
import { messages, next, rest, within } from './support.js';

export async function linkClosedAndKilled(client, address) {
  await closed(client);
  await killed(client, address);
}

async function closed(client) {
  const bucket = 'node-lives';
  const link = client.link();
  const answers = messages(link);
  link.write({ id: '1', link: { bucket, mode: 'LINK_MODE_CREATE_IF_ABSENT' } });
  const { linked } = await next(answers);
  link.write({ id: '2', ping: {} });
  assert.ok((await next(answers)).pong);

  link.end();
  assert.deepEqual(await rest(answers), []);

  assert.equal((await call(client, 'lookup', { bucket })).bucket.id, linked.bucket_id);
}

async function killed(client, address) {
  const bucket = 'node-dies';
  const program = fileURLToPath(new URL('../conformance.js', import.meta.url));
  const child = spawn(process.execPath, [program, '--hold-link', address, bucket], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const [id] = await within(10_000, once(child.stdout, 'data'), 'link of the other process');
    const watch = messages(client.watch({ buckets: [bucket] }));
    const { started } = await next(watch);
    assert.equal(started.monitors[0].bucket_id, String(id).trim());
    assert.ok((await next(watch)).synced);

    child.kill('SIGKILL');

    const { events } = await next(watch, 'DOWN'); // within 5 s
    assert.equal(events.events[0].down.reason, 'REASON_NOCONNECTION');
  } finally {
    child.kill('SIGKILL');
  }
}

/** The other process: links the bucket, says its id, and stays. */
export async function holdLink(address, bucket) {
  const link = connect(address).link();
  link.write({ id: '1', link: { bucket, mode: 'LINK_MODE_CREATE_IF_ABSENT' } });
  for await (const { linked } of link) {
    if (linked) console.log(linked.bucket_id);
  }
}
