/**
 * The traces of starts on this host, a file for each image:
 *
 *     STATE/traces/KEY.trace    docs/formats/trace.md; KEY is the SHA-256 of the digests of the image's layers
 *
 * A trace is advice: one that is lost, damaged or not written costs time only. The oldest make room for new ones.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isUnfinished, replaceFile } from '../io/replace-file.js';

const SUFFIX = '.trace';
/** An empty file with this suffix beside a trace says that the last start was much shorter. */
const SHORT_SUFFIX = '.short';
/** A trace of a large start has 300 KiB. */
const TRACES_BYTES_MAX = 64 << 20;
/** A file that is being written for longer was left by a crash. */
const WRITING_MS_MAX = 60_000;

export class RecordedTraces {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Where the trace of an image is, or would be. @param digests - Of its layers, bottom first. */
  pathOf(digests: readonly string[]): string {
    const key = createHash('sha256').update(digests.join(' ')).digest('hex');
    return join(this.#directory, `${key}${SUFFIX}`);
  }

  /**
   * Writes a trace, or replaces one that is at most twice as long: a much shorter one may be of a start that was cut off. The
   * second such one in a row takes its place.
   *
   * @throws system errors.
   */
  async keep(path: string, trace: Uint8Array): Promise<void> {
    const earlier = await stat(path).catch(() => undefined);
    const mark = `${path}${SHORT_SUFFIX}`;
    const isFirstShort =
      earlier !== undefined && earlier.size > 2 * trace.length && !existsSync(mark);
    if (isFirstShort) return await writeFile(mark, '', { mode: 0o600 });
    await rm(mark, { force: true });
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await this.#makeRoom(trace.length);
    await replaceFile(path, 0o600, (file) => file.writeFile(trace));
  }

  /** Removes a trace that is of no use, so that a shorter one can take its place. Never fails. */
  async discard(path: string): Promise<void> {
    for (const each of [path, `${path}${SHORT_SUFFIX}`]) {
      await rm(each, { force: true }).catch(() => {});
    }
  }

  async #makeRoom(bytes: number): Promise<void> {
    const found: { path: string; size: number; mtimeMs: number }[] = [];
    for (const name of await readdir(this.#directory)) {
      const path = join(this.#directory, name);
      // Other threads keep and remove traces, too.
      const about = await stat(path).catch(() => undefined);
      if (about === undefined) continue;
      const isLeft = isUnfinished(name) && Date.now() - about.mtimeMs > WRITING_MS_MAX;
      if (isLeft) await rm(path, { force: true });
      else found.push({ path, size: about.size, mtimeMs: about.mtimeMs });
    }
    let sum = bytes + found.reduce((all, { size }) => all + size, 0);
    found.sort((a, b) => a.mtimeMs - b.mtimeMs);
    for (const { path, size } of found) {
      if (sum <= TRACES_BYTES_MAX) return;
      await this.discard(path);
      sum -= size;
    }
  }
}
