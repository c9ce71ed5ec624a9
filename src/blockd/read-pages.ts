/**
 * Reads the pages of a start into the kernel's page cache, by the program native/read-pages: a program in a container reads
 * one page after the other, and each takes a way from the kernel to the daemon and back.
 *
 * For a device that is mounted, and whose start reads what is known of it. Ends at the latest after READ_MS_MAX.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import type { HotPages } from '../hot-blob/hot-pages.js';
import { readMountTable } from '../io/mount-table.js';
import { findProgramFile } from '../io/program-files.js';
import { NO_BLOCK } from './hot-blocks.js';

const PROGRAM = findProgramFile(join('native', 'read-pages', 'build', 'Release', 'read-pages'));
/** As long as a start is likely to read what comes. */
const READ_MS_MAX = 10_000;
/** How often it looks whether it is to end while no pages come. */
const LOOK_MS = 250;
/** Pages that arrive are passed on together. */
const PAUSE_MS = 20;
const SAID_BYTES_MAX = 1024;

/**
 * @param path - Of the device.
 * @param blocks - Where the pages are on the disk, as hotBlocks() says.
 * @param signal - Ends it when the device goes.
 * @returns How many pages were named to the kernel. 0 for a device that is not mounted.
 * @throws {ObdError} `Host` if the program cannot be run, fails, or takes too long; the signal's reason.
 */
export async function readPages(
  path: string,
  blocks: Uint32Array,
  hot: HotPages,
  signal: AbortSignal,
): Promise<number> {
  // The first mount is of the whole image, later ones may be of its folders.
  const mount = (await readMountTable()).find(({ source }) => source === path);
  if (mount === undefined) return 0;
  if (PROGRAM === undefined) throw failure('it is not built; build it with `npm run build`');
  signal.throwIfAborted();
  const child = spawn(PROGRAM, [path, mount.target], { stdio: ['pipe', 'ignore', 'pipe'] });
  const over = new AbortController();
  const limit = AbortSignal.any([signal, AbortSignal.timeout(READ_MS_MAX), over.signal]);
  let said = '';
  const ended = new Promise<string | undefined>((resolve) => {
    child.on('error', (error) => resolve(messageOf(error)));
    child.on('close', (status, killedBy) => {
      resolve(status === 0 ? undefined : said.trim() || `it ended by ${killedBy}`);
    });
    limit.addEventListener('abort', () => resolve(`no end within ${READ_MS_MAX} ms`));
  });
  void ended.then(() => over.abort());
  // Without descriptors or memory for a process there are no streams either.
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(0, SAID_BYTES_MAX);
  });
  // A program that has ended early says why.
  child.stdin?.on('error', () => {});
  child.unref();
  let named = 0;
  for await (const arrived of arriving(blocks, hot, limit)) {
    named += arrived.length;
    const frame = Uint32Array.of(arrived.length, ...arrived);
    child.stdin?.write(new Uint8Array(frame.buffer));
  }
  child.stdin?.end();
  const problem = await ended;
  // A program that waits in the kernel is left behind: it ends with the reads of the device.
  child.kill('SIGKILL');
  signal.throwIfAborted();
  if (problem !== undefined) throw failure(problem);
  return named;
}

/** The blocks of pages as they come, in order of first use. */
async function* arriving(blocks: Uint32Array, hot: HotPages, signal: AbortSignal) {
  const { progress } = hot;
  for (let next = 0; next < blocks.length && !signal.aborted; ) {
    const { arrived, hasEnded } = progress;
    if (arrived > next) {
      const first = next;
      const isHere = (block: number, i: number) => block !== NO_BLOCK && hot.has(first + i);
      yield blocks.subarray(first, arrived).filter(isHere);
      next = arrived;
    } else if (hasEnded) return;
    else await progress.next(arrived, LOOK_MS);
    await sleep(PAUSE_MS, undefined, { ref: false });
  }
}

function failure(why: string): ObdError {
  return new ObdError(ErrorCodes.Host, `Cannot run read-pages: ${why}`);
}
