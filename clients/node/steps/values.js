// Each kind of value comes back as it was put, to the bit.

import assert from 'node:assert/strict';

import { call } from '../pail.js';
import { created } from './support.js';

const bits = Buffer.alloc(8);

/** A number by its bits: a NaN written in JavaScript has always the same. */
function fromBits(hex) {
  bits.writeBigUInt64BE(BigInt(hex));
  return bits.readDoubleBE();
}

function toBits(number) {
  bits.writeDoubleBE(number);
  return `0x${bits.toString('hex')}`;
}

export async function values(client) {
  const bucket = 'node-values';
  await created(client, bucket);

  async function through(value) {
    await call(client, 'put', { bucket, key: 'k', value });
    const { entry } = await call(client, 'get', { bucket, key: 'k' });
    assert.equal(entry.value.kind, Object.keys(value)[0]);
    return entry.value[entry.value.kind];
  }

  for (const text of ['', 'two loaves', 'héllo, 世界 🪣', '\0']) assert.equal(await through({ text }), text);

  const data = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  assert.deepEqual(await through({ data }), data);
  assert.deepEqual(await through({ data: Buffer.alloc(0) }), Buffer.alloc(0));

  for (const integer of ['0', '-1', '-9223372036854775808', '9223372036854775807', '9007199254740993']) {
    assert.equal(await through({ integer }), integer);
  }

  // 0.0, -0.0, the least above 0, infinities, and a NaN with a payload.
  for (const hex of [
    '0x0000000000000000', '0x8000000000000000', '0x0000000000000001',
    '0x7ff0000000000000', '0xfff0000000000000', '0x7ff80000deadbeef',
  ]) {
    assert.equal(toBits(await through({ number: fromBits(hex) })), hex);
  }

  for (const flag of [false, true]) assert.equal(await through({ flag }), flag);
}
