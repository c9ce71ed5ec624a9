/** Gives memory that nothing refers to back to the system, on a thread that would not collect it for a long time. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Below this a collection costs more than it gives back. */
const BUFFER_BYTES_MIN = 48 << 20;

let collect: (() => void) | undefined;
let isScheduled = false;

/**
 * Schedules a full collection for the next turn of the event loop, if this thread has large buffers. Call it after an image
 * was opened or closed: opening leaves several times the memory of its index behind, and V8 does not account for this
 * external memory until the thread allocates again. A collection stops the thread for a few milliseconds.
 */
export function collectGarbageSoon(): void {
  if (isScheduled || process.memoryUsage().arrayBuffers < BUFFER_BYTES_MIN) return;
  isScheduled = true;
  setImmediate(() => {
    isScheduled = false;
    collect ??= exposedCollector();
    collect();
  });
}

/** V8 has the function only in contexts that are made after the flag was set. */
function exposedCollector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}
