// Holds this client against a server, step by step: node conformance.js ADDRESS
// The steps, their numbers and their words are those of the other languages.

import { call, connect } from './pail.js';
import { deadlineAndCancel } from './steps/deadline.js';
import { holdLink, linkClosedAndKilled } from './steps/link.js';
import { pipeline } from './steps/pipeline.js';
import { reasons } from './steps/reasons.js';
import { serverRestart } from './steps/restart.js';
import { session } from './steps/session.js';
import { within } from './steps/support.js';
import { values } from './steps/values.js';
import { watchByName, watchByPrefix } from './steps/watch.js';

const STEPS = [
  ['session', session],
  ['values', values],
  ['reasons', reasons],
  ['watch by name', watchByName],
  ['watch by prefix', watchByPrefix],
  ['link closed and link killed', linkClosedAndKilled],
  ['server restart', serverRestart],
  ['pipeline', pipeline],
  ['deadline and cancel', deadlineAndCancel],
];
const STEP_MS = 60_000;

/** Stops what a run that was cut off has left behind. */
async function sweep(client) {
  for (;;) {
    const { buckets } = await call(client, 'list', { prefix: 'node-' });
    if (buckets.length === 0) return;
    for (const { name } of buckets) await call(client, 'stop', { bucket: name });
  }
}

async function conformance(address) {
  const client = connect(address);
  let held = 0;
  for (const [index, [words, step]] of STEPS.entries()) {
    try {
      await sweep(client);
      await within(STEP_MS, step(client, address), 'the end of the step');
      held += 1;
      console.log(`ok ${index + 1} ${words}`);
    } catch (error) {
      const why = error instanceof Error ? `${error.message} (${place(error)})` : String(error);
      console.log(`not ok ${index + 1} ${words}: ${why.replace(/\s+/g, ' ')}`);
    }
  }
  console.log(`conformance: node: ${held} of ${STEPS.length}`);
  process.exit(held === STEPS.length ? 0 : 1);
}

/** Where in the steps it was thrown. */
function place(error) {
  return error.stack?.match(/steps\/(?!support)\w+\.js:\d+/)?.[0] ?? 'in conformance.js';
}

const [first, ...rest] = process.argv.slice(2);
if (first === '--hold-link') await holdLink(...rest);
else if (first) await conformance(first);
else {
  console.error('usage: conformance ADDRESS');
  process.exit(2);
}
