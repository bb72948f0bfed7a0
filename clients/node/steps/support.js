// What the steps have in common.

import assert from 'node:assert/strict';

import { status } from '@grpc/grpc-js';

import { call, reasonIn, reasonOf } from '../pail.js';

/** Waits for the promise, no longer than this. */
export function within(ms, promise, what) {
  let timer;
  const late = new Error(`no ${what} within ${ms} ms`); // Made here, where the stack says who waits.
  const timeout = new Promise((_, reject) => { timer = setTimeout(reject, ms, late); });
  return Promise.race([promise, timeout]).finally(() => clearTimeout(timer));
}

/** What comes next from a stream or a generator; undefined after the last. */
export async function next(iterator, what = 'message') {
  return (await within(5_000, iterator.next(), what)).value;
}

/** The messages of a stream, to be taken by `next`. An error that nobody waits for is no reason to end the process. */
export function messages(stream) {
  stream.on('error', () => {});
  return stream[Symbol.asyncIterator]();
}

/** All that is left of a stream that ends by itself. */
export async function rest(iterator) {
  const left = [];
  for (let message; (message = await next(iterator, 'end of the stream')); ) left.push(message);
  return left;
}

/** A fact that must be there, whatever it is. */
export const ANY = Symbol('any');

/** The call must fail, with this code, this reason, and these facts among the metadata. */
export async function refused(promise, code, reason, facts = {}) {
  const error = await within(10_000, promise, 'answer').then(
    () => assert.fail(`${reason} was expected, and the call succeeded`),
    (error) => error,
  );
  if (error.code === undefined) throw error;
  assert.equal(`${status[error.code]}/${reasonOf(error)?.reason}`, `${status[code]}/${reason}`, error.message);
  says(reasonOf(error), facts);
  return error;
}

/** The same of a google.rpc.Status within a stream. */
export function refusedIn(error, code, reason, facts = {}) {
  assert.ok(error, `${reason} was expected, and there was no error`);
  assert.equal(`${status[error.code]}/${reasonIn(error)?.reason}`, `${status[code]}/${reason}`, error.message);
  says(reasonIn(error), facts);
}

function says(info, facts) {
  assert.equal(info.domain, 'pail');
  for (const [key, fact] of Object.entries(facts)) {
    const found = info.metadata[key];
    assert.ok(fact === ANY ? found : found === fact, `${info.reason}: ${key} is ${found}, not ${String(fact)}`);
  }
}

/** Creates a bucket and returns its id. */
export async function created(client, bucket) {
  const response = await call(client, 'create', { bucket });
  assert.ok(response.created, `${bucket} was there already`);
  return response.bucket.id;
}

/** The environment variable with which clients/run says where something is. */
export function setting(name) {
  return process.env[name] || assert.fail(`${name} is not set`);
}
