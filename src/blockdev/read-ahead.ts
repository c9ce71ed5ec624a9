/**
 * The kernel's readahead on a device: how far it reads beyond what a program asks for.
 *
 * A device has what the driver or the last user of its number left: 128 to 4096 KiB. More than READ_AHEAD_KIB makes reads
 * wait for bytes that no program wants, which a cold image fetches from its registry; the cache fetches ahead of sweeps by
 * itself (src/cache/fetch-window.ts). docs/adr/0012-fetch-engine.md has the measurements.
 *
 * Nothing is put back on detach: nodes of nbd, tcmu and ublk go with their devices, and the kernel computes the value of a loop
 * device anew when it gets another file.
 */
import { writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemCode } from '../errors.js';

export const READ_AHEAD_KIB = 256;
/** While the pages of a start are known: more would read pages that no program wants, and that are not among them. */
const KNOWN_START_KIB = 16;
/** The node in /dev may exist a moment before the one in /sys/block. */
const APPEAR_MS = 1_000;
const POLL_MS = 10;

/** @param isKnown - Whether the pages of the start are known, or recorded for starts that will know them. */
export function readAheadKib(isKnown: boolean): number {
  return isKnown ? KNOWN_START_KIB : READ_AHEAD_KIB;
}

/** Sets the readahead of the block device `path`. Never fails: without it the device is slower, and right. */
export async function setReadAhead(path: string, kib = READ_AHEAD_KIB): Promise<void> {
  const file = `/sys/block/${basename(path)}/queue/read_ahead_kb`;
  const untilMs = performance.now() + APPEAR_MS;
  for (;;) {
    try {
      await writeFile(file, String(kib), { flag: 'r+' });
      return;
    } catch (error) {
      if (systemCode(error) !== 'ENOENT' || performance.now() > untilMs) return;
    }
    await sleep(POLL_MS);
  }
}
