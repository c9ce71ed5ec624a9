/**
 * Reads the pages of a start into the kernel's page cache, by the program native/read-pages: a program in a container reads
 * one page after the other, and each takes a way from the kernel to the daemon and back.
 *
 * For a device that is mounted, and whose start reads what is known of it, or most of the image. Ends at the latest after
 * READ_MS_MAX.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { readMountTable } from '../io/mount-table.js';
import { findProgramFile } from '../io/program-files.js';
import type { PagesRead } from './worker-messages.js';

const PROGRAM = findProgramFile(join('native', 'read-pages', 'build', 'Release', 'read-pages'));
/** As long as a start is likely to read what comes. */
const READ_MS_MAX: Readonly<Record<PagesRead, number>> = { known: 10_000, stored: 60_000 };
/** The program's third argument: what is in no file, such as directories, has been read by a walk. */
const FILES_ONLY = 'files';
const SAID_BYTES_MAX = 1024;

/** Blocks of the disk, as they come; they end at the latest with the signal. */
export type BlocksUntil = (signal: AbortSignal) => AsyncIterable<Uint32Array>;

/**
 * @param path - Of the device.
 * @param signal - Ends it when the device goes.
 * @returns How many pages were named to the kernel. 0 for a device that is not mounted.
 * @throws {ObdError} `Host` if the program cannot be run, fails, or takes too long; the signal's reason.
 */
export async function readPages(
  path: string,
  what: PagesRead,
  blocks: BlocksUntil,
  signal: AbortSignal,
): Promise<number> {
  // The first mount is of the whole image, later ones may be of its folders.
  const mount = (await readMountTable()).find(({ source }) => source === path);
  if (mount === undefined) return 0;
  if (PROGRAM === undefined) throw failure('it is not built; build it with `npm run build`');
  signal.throwIfAborted();
  const more = what === 'stored' ? [FILES_ONLY] : [];
  const child = spawn(PROGRAM, [path, mount.target, ...more], {
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  const over = new AbortController();
  const msMax = READ_MS_MAX[what];
  const limit = AbortSignal.any([signal, AbortSignal.timeout(msMax), over.signal]);
  let said = '';
  const ended = new Promise<string | undefined>((resolve) => {
    child.on('error', (error) => resolve(messageOf(error)));
    child.on('close', (status, killedBy) => {
      resolve(status === 0 ? undefined : said.trim() || `it ended by ${killedBy}`);
    });
    limit.addEventListener('abort', () => resolve(`no end within ${msMax} ms`));
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
  for await (const arrived of blocks(limit)) {
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

function failure(why: string): ObdError {
  return new ObdError(ErrorCodes.Host, `Cannot run read-pages: ${why}`);
}
