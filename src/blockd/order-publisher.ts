/**
 * Keeps the load orders of starts on this host, and publishes them with the image for other nodes. The artifact has the load
 * order and a hot blob of its pages; its subject is the image's manifest.
 *
 * A node that uses a published order adds its own start to it, up to STARTS_PUBLISHED: then nodes only use it. A registry that
 * refuses is left alone for a day. Anyone who may push can claim many starts: if a start of this host deviates much from such an
 * order, the order counts as one start, and the node publishes what it has read, once a day at most. A load order holds numbers
 * of pages and times, nothing of host or container.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { KeptOrders } from '../load-order/kept-orders.js';
import { type LoadOrder, pageCount, parseLoadOrder } from '../load-order/load-order.js';
import { asOneStart, mergeOrders } from '../load-order/merge-orders.js';
import { type HotBlobFile, orderArtifact } from '../load-order/order-artifact.js';
import { isPublishedAs, publishedAs, variantOf } from '../load-order/select-order.js';
import { sharedPages } from '../load-order/shared-pages.js';
import type { ReferrerDescriptor } from '../oci/referrer.js';
import { publishArtifact } from '../registry/publish-artifact.js';
import type { RegistryClient } from '../registry/registry-client.js';
import type { ExpectedImage } from './expected-image.js';
import type { ExpectedStart } from './expected-starts.js';
import { LapsingNames } from './lapsing-names.js';
import type { StartAdvices } from './start-advice.js';
import type { WriteHot } from './worker-messages.js';

/** For a registry that refuses, and between two corrections of an image's order: hosts with different starts could correct each other. */
const DAY_MS = 86_400_000;
/** Many times the repositories and images of a machine. */
const REMEMBERED_MAX = 1024;
/** The pages of so many starts differ little from those of more. */
const STARTS_PUBLISHED = 3;
/** A start that has so much less in common with a published order is one of which the order says nothing. */
const OWN_SHARE_MIN = 0.5;
/** An order of which a start reads so much less is hardly of starts of this image. A union of several commands has more. */
const READ_SHARE_MIN = 0.125;
const PUBLISH_MS_MAX = 300_000;
/** Orders that are kept or published, and that wait for it: each has up to 1.5 MiB. */
const WAITING_MAX = 32;

interface Dependencies {
  readonly client: RegistryClient;
  readonly advices: StartAdvices;
  readonly kept: KeptOrders;
  /** For a hot blob until it is uploaded. */
  readonly directory: string;
  /** Whether what starts have read is published. */
  readonly publishes: boolean;
  readonly log: Logger;
}

/** The result of store(). */
export interface StoredOrder {
  /** The digest of the artifact; empty if nothing was published. */
  readonly artifact: string;
  /** As published, or as given. */
  readonly order: LoadOrder;
  /** The size of the hot blob of its pages. */
  readonly hotBytes: number;
}

export class OrderPublisher {
  readonly #dependencies: Dependencies;
  /** Repositories that are left alone. */
  readonly #refused = new LapsingNames(REMEMBERED_MAX);
  /** Images whose published order this host has corrected. */
  readonly #corrected = new LapsingNames(REMEMBERED_MAX);
  /** One at a time: each reads and compresses tens of MiB. */
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;
  #files = 0;

  constructor(dependencies: Dependencies) {
    this.#dependencies = dependencies;
  }

  /** Keeps the load order of a start, and publishes it if the daemon is to. Never fails; logs why nothing was published. */
  recorded(start: ExpectedStart, bytes: Uint8Array, writeHot: WriteHot): void {
    if (this.#waiting >= WAITING_MAX) {
      const image = labelOf(start.image);
      this.#dependencies.log.info({ image }, 'load order not kept, too many others wait');
      return;
    }
    void this.#next(async () => {
      const image = labelOf(start.image);
      try {
        const order = parseLoadOrder(Buffer.from(bytes), `of ${image}`);
        await this.#dependencies.kept.keep(order, variantOf(start.image.wish));
        if (this.#dependencies.publishes) await this.#publishUnasked(start, order, writeHot);
        await start.recorded(order);
      } catch (err) {
        this.#dependencies.log.warn({ image, err }, 'load order of the start not kept');
      }
    });
  }

  /**
   * Keeps what a client has recorded, and publishes it if the client wants that, merged into what is published already.
   *
   * @throws {ObdError} what reading and writing at the registry throw; read errors of the image; system errors.
   */
  async store(
    image: ExpectedImage,
    own: LoadOrder,
    writeHot: WriteHot,
    publishes: boolean,
  ): Promise<StoredOrder> {
    return await this.#next(async () => {
      await this.#dependencies.kept.keep(own, variantOf(image.wish));
      if (!publishes) {
        return await this.#withHotBlob(own, writeHot, async (hot) => ({
          artifact: '',
          order: own,
          hotBytes: hot?.sizeBytes ?? 0,
        }));
      }
      const signal = AbortSignal.timeout(PUBLISH_MS_MAX);
      const found = await this.#published(image, signal);
      const order = found === undefined ? own : mergeOrders(found.order, own);
      return await this.#publish(image, order, found?.artifact, writeHot, signal);
    });
  }

  /** Waits for what is under way. */
  async idle(): Promise<void> {
    await this.#last;
  }

  async #next<T>(work: () => Promise<T>): Promise<T> {
    this.#waiting++;
    const done = this.#last.then(work).finally(() => {
      this.#waiting--;
    });
    this.#last = done.then(
      () => {},
      () => {},
    );
    return await done;
  }

  async #publishUnasked(
    { image, unfitHot }: ExpectedStart,
    own: LoadOrder,
    writeHot: WriteHot,
  ): Promise<void> {
    const { host, repository, manifest } = image;
    const place = `${host}/${repository}`;
    if (manifest === undefined || this.#refused.has(place)) return;
    const signal = AbortSignal.timeout(PUBLISH_MS_MAX);
    const { log } = this.#dependencies;
    let unread: unknown;
    const reading: WriteHot = async (runs, path) => {
      try {
        return await writeHot(runs, path);
      } catch (error) {
        unread = error;
        throw error;
      }
    };
    try {
      const found = await this.#published(image, signal);
      const isWanted =
        found?.hot === undefined || found.hot.digest === unfitHot || adds(found.order, own);
      const corrects =
        !isWanted && isOfOther(found.order, own) && !this.#corrected.has(nameOf(image));
      if (!isWanted && !corrects) return;
      const older = corrects ? asOneStart(found.order) : found?.order;
      const order = older === undefined ? own : mergeOrders(older, own);
      await this.#publish(image, order, found?.artifact, reading, signal);
      if (corrects) this.#corrected.add(nameOf(image), DAY_MS);
    } catch (err) {
      if (unread !== undefined) {
        // The device is gone, or a page cannot be read. No registry has refused, and the next start may be longer.
        log.info({ image: place, err }, 'load order not published, the pages were not read');
        return;
      }
      // The registry was away or slow, or other writers were faster: all pass.
      if (signal.aborted || hasCode(err, ErrorCodes.Unavailable) || hasCode(err, ErrorCodes.Busy)) {
        log.info({ image: place, err }, 'load order not published, the next start tries again');
        return;
      }
      this.#refused.add(place, DAY_MS);
      log.warn(
        { image: place, err },
        'load order not published; this repository is left alone for a day',
      );
    }
  }

  /** The order that the image's start is merged into, and its hot blob. */
  async #published(image: ExpectedImage, signal: AbortSignal) {
    const advice = await this.#dependencies.advices.ofSameStart(image, signal);
    const order = await advice?.order?.().catch(unfitIsNone);
    return advice && order && { order, hot: advice.hot, artifact: advice.artifact };
  }

  async #publish(
    image: ExpectedImage,
    order: LoadOrder,
    earlier: ReferrerDescriptor | undefined,
    writeHot: WriteHot,
    signal: AbortSignal,
  ): Promise<StoredOrder> {
    const { host, repository, manifest, manifestType: mediaType, wish } = image;
    if (manifest === undefined) {
      const message = `Cannot publish a load order of ${host}/${repository}: its manifest is not known`;
      throw new ObdError(ErrorCodes.FailedPrecondition, message);
    }
    const { advices, client, log } = this.#dependencies;
    return await this.#withHotBlob(order, writeHot, async (hot) => {
      const subject = { mediaType, digest: manifest.digest, size: manifest.sizeBytes };
      const as = publishedAs(wish, earlier);
      const artifact = {
        ...orderArtifact(order, hot, as),
        replaces: (found: Pick<ReferrerDescriptor, 'annotations'>) => isPublishedAs(found, as),
      };
      const { digest } = await publishArtifact(client, host, repository, subject, artifact, signal);
      advices.forget(image);
      const { starts, runs } = order;
      const { digest: hotDigest, sizeBytes = 0 } = hot ?? {};
      log.info(
        {
          image: `${host}/${repository}`,
          starts,
          runs: runs.length,
          digest: hotDigest,
          sizeBytes,
        },
        'load order published',
      );
      return { artifact: digest, order, hotBytes: sizeBytes };
    });
  }

  /** Calls `use` with a file of the order's pages, and removes the file; with none if no hash tree proves any. */
  async #withHotBlob<T>(
    { runs }: LoadOrder,
    writeHot: WriteHot,
    use: (hot: HotBlobFile | undefined) => Promise<T>,
  ): Promise<T> {
    const { directory } = this.#dependencies;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const path = join(directory, `${++this.#files}.hot`);
    try {
      const numbers = runs.flatMap(({ layer, leaf, count }) => [layer, leaf, count]);
      const written = await writeHot(Uint32Array.from(numbers), path);
      return await use(written === undefined ? undefined : { path, ...written });
    } finally {
      await rm(path, { force: true }).catch(() => {});
    }
  }
}

function labelOf({ host, repository, manifest }: ExpectedImage): string {
  return `${host}/${repository}@${manifest?.digest ?? ''}`;
}

/** Names the image and the variant of its start. */
function nameOf(image: ExpectedImage): string {
  return `${labelOf(image)} ${variantOf(image.wish)}`;
}

/** A document that is damaged, or gone, is replaced. One of a later version is left alone. */
function unfitIsNone(error: unknown): undefined {
  if (hasCode(error, ErrorCodes.Corrupt) || hasCode(error, ErrorCodes.NotFound)) return undefined;
  throw error;
}

/** Whether a start on this host makes a published order better. Less read-ahead means a more exact order. */
function adds(found: LoadOrder, own: LoadOrder): boolean {
  if (found.kind !== 'recorded' || !isOfSame(found, own)) return true;
  return found.starts < STARTS_PUBLISHED && found.readAheadBytes >= own.readAheadBytes;
}

/** Whether a start on this host has little to do with a published order of the image. */
function isOfOther(found: LoadOrder, own: LoadOrder): boolean {
  const shared = sharedPages(own, found);
  return shared < OWN_SHARE_MIN * pageCount(own) || shared < READ_SHARE_MIN * pageCount(found);
}

/** Whether an order is one of the image: anyone who may push can name another image's. */
function isOfSame(found: LoadOrder, own: LoadOrder): boolean {
  return (
    found.layers.length === own.layers.length &&
    found.layers.every(({ digest }, i) => digest === own.layers[i]!.digest)
  );
}
