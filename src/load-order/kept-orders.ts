/**
 * The load orders of the starts on this host, a file for each image:
 *
 *     STATE/load-orders/KEY.json    docs/formats/load-order.md; KEY is the SHA-256 of the digests of the image's layers, and of the
 *                                   variant of the start (variantOf() of select-order.ts)
 *
 * An order is advice: one that is lost, damaged or not written costs time only. The oldest make room for new ones. Threads that
 * keep orders of one image at once may lose one start, never the file.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ErrorCodes, hasCode, systemCode } from '../errors.js';
import { corrupt } from '../io/format-error.js';
import { isUnfinished, replaceFile } from '../io/replace-file.js';
import {
  DOCUMENT_BYTES_MAX,
  encodeLoadOrder,
  type LoadOrder,
  parseLoadOrder,
} from './load-order.js';
import { mergeOrders } from './merge-orders.js';

const SUFFIX = '.json';
/** An empty file with this suffix says of an order that the last start was much shorter. */
const SHORT_SUFFIX = '.short';
/** An order of a large start has 300 KiB. */
const ORDERS_BYTES_MAX = 64 << 20;
/** A file that is being written for longer was left by a crash. */
const WRITING_MS_MAX = 60_000;

export class KeptOrders {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Where the order of an image is, or would be.
   *
   * @param digests - Of its layers, bottom first.
   * @param variant - Of the start; empty for the usual one.
   */
  pathOf(digests: readonly string[], variant = ''): string {
    const names = variant === '' ? digests : [...digests, variant];
    const key = createHash('sha256').update(names.join(' ')).digest('hex');
    return join(this.#directory, `${key}${SUFFIX}`);
  }

  /**
   * The order of an image; undefined if there is none. A damaged one is removed.
   *
   * @throws {ObdError} `Corrupt` for one that was damaged, `Unsupported` for one of a later version; system errors.
   */
  async find(digests: readonly string[], variant = ''): Promise<LoadOrder | undefined> {
    const path = this.pathOf(digests, variant);
    try {
      const { size } = await stat(path);
      if (size > DOCUMENT_BYTES_MAX)
        throw corrupt({ label: path }, 0, `${size} bytes are too many`);
      const order = parseLoadOrder(await readFile(path), path);
      const isOfImage = digests.join(' ') === order.layers.map(({ digest }) => digest).join(' ');
      if (!isOfImage) throw corrupt({ label: path }, 0, 'it belongs to another image');
      return order;
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return undefined;
      if (hasCode(error, ErrorCodes.Corrupt)) await discardFile(path);
      throw error;
    }
  }

  /**
   * Merges an order into the one that is there, or writes it. A start that needed less than half of the chunks may have been cut
   * off, so it changes nothing; the second such one in a row replaces what is there. Read-ahead changes the number of chunks
   * less than that of pages, so chunks are compared: an order that is only more exact should not count as short.
   *
   * @returns What is kept now.
   * @throws system errors.
   */
  async keep(order: LoadOrder, variant = ''): Promise<LoadOrder> {
    const digests = order.layers.map(({ digest }) => digest);
    const path = this.pathOf(digests, variant);
    const mark = `${path}${SHORT_SUFFIX}`;
    // A damaged one is gone then, and one of a later version is replaced.
    const earlier = await this.find(digests, variant).catch(() => undefined);
    const isShort = earlier !== undefined && earlier.chunks.length > 2 * order.chunks.length;
    if (isShort && !existsSync(mark)) {
      await writeFile(mark, '', { mode: 0o600 });
      return earlier;
    }
    await rm(mark, { force: true });
    const kept = earlier === undefined || isShort ? order : mergeOrders(earlier, order);
    const bytes = encodeLoadOrder(kept);
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await this.#makeRoom(bytes.length, path);
    await replaceFile(path, 0o600, (file) => file.writeFile(bytes));
    return kept;
  }

  /** Removes an order that is of no use. Never fails. */
  async discard(digests: readonly string[]): Promise<void> {
    await discardFile(this.pathOf(digests));
  }

  /** @param path - Is about to be replaced, so its bytes do not count. */
  async #makeRoom(bytes: number, path: string): Promise<void> {
    const found: { path: string; size: number; mtimeMs: number }[] = [];
    for (const name of await readdir(this.#directory)) {
      const other = join(this.#directory, name);
      // Other threads keep and remove orders, too.
      const about = await stat(other).catch(() => undefined);
      if (about === undefined || other === path) continue;
      const isLeft = isUnfinished(name) && Date.now() - about.mtimeMs > WRITING_MS_MAX;
      if (isLeft) await rm(other, { force: true });
      else found.push({ path: other, size: about.size, mtimeMs: about.mtimeMs });
    }
    let sum = bytes + found.reduce((all, { size }) => all + size, 0);
    found.sort((a, b) => a.mtimeMs - b.mtimeMs);
    for (const { path: oldest, size } of found) {
      if (sum <= ORDERS_BYTES_MAX) return;
      await discardFile(oldest);
      sum -= size;
    }
  }
}

async function discardFile(path: string): Promise<void> {
  for (const each of [path, `${path}${SHORT_SUFFIX}`]) {
    await rm(each, { force: true }).catch(() => {});
  }
}
