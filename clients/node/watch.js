// A watch that goes on: over broken connections, drains and restarts of the server. Copy it, and pail.js with it.

import { setTimeout as sleep } from 'node:timers/promises';

import { status } from '@grpc/grpc-js';

import { reasonOf } from './pail.js';

const HEARTBEAT = { seconds: 5, nanos: 0 };
const BACKOFF_MIN_MS = 100;
const BACKOFF_MAX_MS = 5_000;

/**
 * Yields the events of a Watch of `{ prefix }`, or of `{ buckets, follow: true }`, for ever, each once.
 *
 * Where it can't be resumed it takes a new snapshot, and calls `onReset(registryId)` first: drop what you know. Silence
 * for three heartbeats is taken for a broken connection. Errors that are not about the way to the server are thrown.
 * Leave the loop to end it, or abort `signal`.
 */
export async function* resumingWatch(client, request, { onReset = () => {}, signal } = {}) {
  const { seconds, nanos = 0 } = request.heartbeat ?? HEARTBEAT;
  const silenceMs = 3 * (Number(seconds) * 1_000 + nanos / 1e6);
  let registryId; // of the revision; undefined until there was a watch
  let revision = '0'; // up to which all was yielded; 0 until a snapshot is complete
  let backoffMs = BACKOFF_MIN_MS;
  while (!signal?.aborted) {
    const resumed = revision !== '0';
    const after = resumed ? { after_revision: revision, registry_id: registryId } : {};
    const stream = client.watch({ heartbeat: HEARTBEAT, ...request, ...after });
    const cancel = () => stream.cancel();
    let silent = false;
    const listen = () => setTimeout(() => { silent = true; cancel(); }, silenceMs);
    let silence = listen();
    signal?.addEventListener('abort', cancel);
    stream.on('error', () => {}); // The loop has it too; an error after the loop would end the process.
    try {
      for await (const response of stream) {
        clearTimeout(silence); // The time that the caller takes for an event is not the server's.
        if (response.started) {
          if (registryId && !resumed) onReset(response.started.registry_id);
          registryId = response.started.registry_id;
        }
        yield* response.events?.events ?? [];
        revision = response.revision;
        if (revision !== '0') backoffMs = BACKOFF_MIN_MS;
        silence = listen();
      }
      return;
    } catch (error) {
      if (signal?.aborted) return;
      const { reason, metadata } = reasonOf(error) ?? {};
      if (reason === 'REVISION_COMPACTED' || reason === 'REVISION_UNKNOWN') revision = '0';
      else if (reason === 'WATCHER_LAGGED') revision = metadata.resume_revision ?? '0';
      else if (error.code !== status.UNAVAILABLE && !silent) throw error;
    } finally {
      clearTimeout(silence);
      signal?.removeEventListener('abort', cancel);
      cancel();
    }
    await sleep(backoffMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {});
    backoffMs = Math.min(2 * backoffMs, BACKOFF_MAX_MS);
  }
}
