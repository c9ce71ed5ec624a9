/**
 * The begin and the end of one call in the log, at level debug. The lines between them say what was checked and decided;
 * docs/snapshotter.md lists them.
 *
 * Guarantees:
 *   - Each line is bounded: text from a client or an image is cut at SHOWN_MAX characters.
 *   - Labels are never logged as a whole: an image may put anything into them. The daemon's log blanks credentials.
 */
import { ErrorCodes, hasCode, messageOf } from '../errors.js';
import { BLOB_DIGEST_ANNOTATION } from '../layers/overlaybd-annotations.js';
import { REF_LABEL } from './labels.js';
import type { Log } from './log.js';
import type { Labels } from './snapshot.js';

/** Characters of a key, a reference or a label in the log. */
const SHOWN_MAX = 300;

const EVENTS = {
  prepare: { started: 'prepare started', finished: 'prepare finished' },
  view: { started: 'view started', finished: 'view finished' },
} as const;

interface LoggedRequest {
  readonly key: string;
  readonly parent: string;
  readonly labels: Labels;
  readonly namespace: string | undefined;
}

/**
 * Runs one call on a snapshot, and logs when it starts, how it ends and how long it took.
 *
 * @throws The call's own error.
 */
export async function logged<T>(
  log: Log,
  call: keyof typeof EVENTS,
  { key, parent, labels, namespace }: LoggedRequest,
  run: () => Promise<T>,
): Promise<T> {
  const startedMs = performance.now();
  const { started, finished } = EVENTS[call];
  const about = { key: cut(key), namespace: cut(namespace) };
  const layer = { ref: cut(labels[REF_LABEL]), digest: cut(labels[BLOB_DIGEST_ANNOTATION]) };
  log.debug({ ...about, parent: cut(parent), ...layer }, started);
  try {
    const result = await run();
    log.debug({ ...about, outcome: 'mounts', ms: msSince(startedMs) }, finished);
    return result;
  } catch (error) {
    // For a layer that a client is about to unpack, this is the answer that saves the download.
    const isExisting = hasCode(error, ErrorCodes.AlreadyExists);
    const outcome = isExisting ? 'exists' : 'failed';
    const problem = cut(messageOf(error));
    log.debug({ ...about, outcome, problem, ms: msSince(startedMs) }, finished);
    throw error;
  }
}

/** Whole milliseconds since a time of performance.now(). */
export function msSince(startedMs: number): number {
  return Math.round(performance.now() - startedMs);
}

/** The text as the log shows it. */
export function cut(text: string | undefined): string | undefined {
  return text?.slice(0, SHOWN_MAX);
}
