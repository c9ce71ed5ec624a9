/**
 * The images whose starts are expected, from the pull on, and what is fetched ahead of each (start-advice.ts): the pages of a
 * hot blob, or the chunks of a load order. A fetch that is not needed any more is stopped:
 *
 *   expect()    a client pulls the image; what it reads is fetched, up to the limit of a hot blob or of a load order
 *   opened()    a device serves it, and uses the same fetch
 *   guide()     its reads begin: if they are others, what is under way ends (advice-trial.ts)
 *   closed()    the last device of it is gone: what is under way ends
 */
import type { Logger } from 'pino';
import type { BlobHandle } from '../cache/blob-handle.js';
import type { BlockCache } from '../cache/block-cache.js';
import type { ImageReads } from '../cache/image-reads.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { HotIndex } from '../hot-blob/hot-index.js';
import { KNOWN_PAGES_MIN } from '../hot-blob/hot-pages.js';
import { type LoadOrder, pageCount } from '../load-order/load-order.js';
import { variantOf } from '../load-order/select-order.js';
import { type LayerPages, sharedPages } from '../load-order/shared-pages.js';
import type { RegistryClient } from '../registry/registry-client.js';
import { AdviceTrial, PAGES_PER_MISS, type TriedAdvice } from './advice-trial.js';
import { type ExpectedImage, startKey } from './expected-image.js';
import type { HotBlobAddress, HotImage, HotImages } from './hot-images.js';
import { registrySource } from './registry-source.js';
import { Replay } from './replay.js';
import type { StartAdvice, StartAdvices } from './start-advice.js';

/** Images that are pulled and not started: more than a host pulls at once. Further ones are fetched as they are read. */
const UNUSED_MAX = 64;
/** An image that no device has served for so long after its pull is forgotten; what was fetched stays in the cache. */
const UNUSED_MS = 120_000;
/** How long after the pull opening an image waits until it is known whether there are hot pages. */
const HOT_WAIT_MS = 1_000;
/** If so much of what a load order names is stored, the image has been started here: nothing has to be looked up. */
const STORED_SHARE = 0.9;
/** Kept hot pages that have a smaller part of what a start reads are of other starts. */
const USEFUL_SHARE_MIN = 0.5;
/** A start whose pages are known misses a few that chance has read. */
const KNOWN_MISSES_MAX = 32;

interface Dependencies {
  readonly cache: BlockCache;
  readonly client: Pick<RegistryClient, 'blobRanges'>;
  readonly hotImages: HotImages;
  readonly advices: StartAdvices;
  /** Whether what is known of starts is fetched. */
  readonly isUsed: boolean;
  readonly log: Logger;
}

export class ExpectedStarts {
  readonly #dependencies: Dependencies;
  readonly #starts = new Map<string, ExpectedStart>();

  constructor(dependencies: Dependencies) {
    this.#dependencies = dependencies;
  }

  /** Begins to fetch what the image's start will read, unless that is under way. Answers at once. */
  expect(image: ExpectedImage): void {
    const unused = [...this.#starts.values()].filter(({ users }) => users.size === 0).length;
    if (unused < UNUSED_MAX || this.#starts.has(keyOf(image))) this.#startOf(image, true);
  }

  /**
   * The image is being opened for a device. Call closed() when that is gone.
   *
   * @param isStart - Whether its start follows. A device that is served again has had it, and only gets what is here.
   */
  opened(image: ExpectedImage, isStart: boolean, device: ServingDevice): ExpectedStart {
    const start = this.#startOf(image, isStart);
    start.users.add(device);
    return start;
  }

  closed(start: ExpectedStart, device: ServingDevice): void {
    start.users.delete(device);
    if (start.users.size === 0) this.#end(start);
  }

  /** The devices that serve the image now. */
  serving(layers: ExpectedImage['layers']): ServingDevice[] {
    const key = startKey(layers);
    const starts = [...this.#starts.values()];
    return starts.flatMap(({ users, image }) => (startKey(image.layers) === key ? [...users] : []));
  }

  /** Stops all fetches. */
  close(): void {
    for (const start of this.#starts.values()) this.#end(start);
  }

  #startOf(image: ExpectedImage, isStart: boolean): ExpectedStart {
    const key = keyOf(image);
    const found = this.#starts.get(key);
    // A client that says more of the start comes after its pull. A start that is under way stays what it is.
    const isOther = image.manifest !== undefined && found?.isOfVariant(image) === false;
    if (found !== undefined && isOther && found.users.size === 0) this.#end(found);
    else if (found !== undefined) {
      found.learn(image);
      return found;
    }
    const start = new ExpectedStart(image, isStart, this.#dependencies);
    this.#starts.set(key, start);
    setTimeout(() => {
      if (start.users.size === 0) this.#end(start);
    }, UNUSED_MS).unref();
    return start;
  }

  #end(start: ExpectedStart): void {
    const key = keyOf(start.image);
    if (this.#starts.get(key) === start) this.#starts.delete(key);
    start.stop();
  }
}

/** Images of two repositories are two starts, also with the same layers: neither may tell the other what it reads. */
function keyOf({ host, repository, layers }: ExpectedImage): string {
  return `${host}/${repository} ${startKey(layers)}`;
}

export interface ServingDevice {
  /** Its node; empty until it is connected. */
  readonly path: string;
}

/** A device that serves the start. */
export interface GuidedDevice {
  readonly blobs: readonly BlobHandle[];
  readonly reads: ImageReads;
  /** Whether it reads the hot pages where they are. */
  readonly hasHotPages: boolean;
  /** Called when what is known is set aside. */
  onSetAside(): void;
}

/** One of them. */
export class ExpectedStart {
  image: ExpectedImage;
  /** Devices that serve it. */
  readonly users = new Set<ServingDevice>();
  /** The digest of a hot blob that has not proved itself. */
  unfitHot: string | undefined;
  /** Whether the hot pages are what a start reads, and nothing that the kernel reads around it. */
  isExact = false;
  /** The hot pages, once their index is known. Never rejects. */
  readonly #hot: Promise<HotImage | undefined>;
  readonly #dependencies: Dependencies;
  readonly #abort = new AbortController();
  readonly #begunMs = performance.now();
  /** Ends the fetch of a hot blob that is set aside. */
  readonly #refutal = new AbortController();
  /** Devices whose starts show whether what is known is right. */
  readonly #guided = new Map<GuidedDevice['blobs'], GuidedDevice>();
  #replay: Replay | undefined;
  /** Whether the hot pages are of an earlier start. */
  #isKept = false;
  /** Undefined if nothing is known, or its bytes do not come any more. */
  #advice: TriedAdvice | undefined;
  #trial: AdviceTrial | undefined;
  #missesLeft = KNOWN_MISSES_MAX;
  #hasWarned = false;

  constructor(image: ExpectedImage, isStart: boolean, dependencies: Dependencies) {
    this.image = image;
    this.#dependencies = dependencies;
    this.#hot = this.#begin(isStart).catch((err: unknown) => {
      if (!this.#abort.signal.aborted) this.#warn(err);
      return undefined;
    });
  }

  /** Whether the same is fetched for it as for that image. */
  isOfVariant({ wish }: ExpectedImage): boolean {
    return variantOf(this.image.wish) === variantOf(wish);
  }

  /** A device may have been there before the manifest was known. */
  learn(image: ExpectedImage): void {
    if (this.image.manifest === undefined) this.image = image;
  }

  /** The hot pages, if they are known within HOT_WAIT_MS of the pull. */
  async hot(): Promise<HotImage | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      const leftMs = this.#begunMs + HOT_WAIT_MS - performance.now();
      timer = setTimeout(() => resolve(undefined), Math.max(0, leftMs));
    });
    try {
      return await Promise.race([this.#hot, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Misses of a device's blobs, whose start begins now, bring no neighbours of what is fetched anyway. They show whether what is
   * known is right; otherwise it is set aside.
   */
  guide(device: GuidedDevice): void {
    this.#guided.set(device.blobs, device);
    device.reads.isKnown = this.#guide(device);
  }

  /** The device of these blobs goes. */
  unguide(blobs: GuidedDevice['blobs']): void {
    this.#guided.delete(blobs);
  }

  /** Whether what is known says something of the start. Hot pages that came after the device was opened say nothing. */
  #guide({ blobs, hasHotPages }: GuidedDevice): boolean {
    if (this.#advice === undefined || (this.#replay === undefined && !hasHotPages)) return false;
    this.#trial ??= new AdviceTrial(this.#advice, (why) => this.#refuted(why));
    const trial = this.#trial;
    if (trial.isRefuted) return false;
    if (this.#replay !== undefined) {
      this.#replay.guide(blobs, trial);
      return this.#replay.isKnown;
    }
    // The pages of the start are known, so what it misses is scattered. A start that misses more than a few is followed.
    const onMiss = () => {
      trial.missed();
      return !trial.isRefuted && this.#missesLeft-- > 0;
    };
    for (const blob of blobs) blob.onMiss(onMiss);
    return true;
  }

  /** A start has read these pages. If kept ones were of little use to it, they go: the next pull looks for better ones. */
  async recorded(order: LoadOrder): Promise<void> {
    const hot = this.#isKept ? await this.#hot : undefined;
    if (hot === undefined) return;
    const useful = sharedPages(order, pagesIn(hot.index));
    if (useful >= USEFUL_SHARE_MIN * pageCount(order)) return;
    await hot.forget();
    const { host, repository } = this.image;
    const about = { image: `${host}/${repository}`, read: pageCount(order), useful };
    this.#dependencies.log.info(about, 'kept hot pages dropped, the start read others');
  }

  stop(): void {
    this.#abort.abort();
    this.#replay?.stop();
  }

  #refuted(why: ObdError): void {
    if (this.#abort.signal.aborted) return;
    this.#refutal.abort(why);
    this.#replay?.stop();
    // Kept pages cost no start anything.
    if (!this.#isKept) this.#warn(why);
    for (const { onSetAside } of this.#guided.values()) onSetAside();
  }

  /** The bytes do not come any more: misses say nothing of the advice. */
  #failed(): void {
    this.#advice = undefined;
    this.#trial = undefined;
    for (const { onSetAside } of this.#guided.values()) onSetAside();
  }

  #noteAdvice(advice: TriedAdvice): void {
    this.#advice = advice;
    this.#trial = undefined;
    // Devices may read by now: the registry was slow.
    for (const device of this.#guided.values()) device.reads.isKnown = this.#guide(device);
  }

  async #begin(isStart: boolean): Promise<HotImage | undefined> {
    const { hotImages, advices, isUsed } = this.#dependencies;
    const { signal } = this.#abort;
    if (!isUsed) return undefined;
    const kept = await hotImages.kept(this.image);
    this.#isKept = kept?.isWhole === true;
    if (this.#isKept && isStart) this.#notePages(kept!);
    if (this.#isKept || !isStart) return kept;
    for await (const advice of advices.find(this.image, signal)) {
      const hot = advice.hot && (await this.#fetchHot(advice.hot));
      if (hot !== undefined) {
        this.isExact = advice.isExact;
        return hot;
      }
      if (await this.#beginReplay(advice)) break;
    }
    return kept;
  }

  /** Undefined if the hot blob cannot be used. */
  async #fetchHot(address: HotBlobAddress): Promise<HotImage | undefined> {
    const { hotImages, log } = this.#dependencies;
    const { signal } = this.#abort;
    const { digest } = address;
    const startedMs = performance.now();
    try {
      const either = AbortSignal.any([signal, this.#refutal.signal]);
      const image = await hotImages.fetch(address, this.image, either);
      image.done.then(
        () =>
          log.info({ digest, pages: image.index.pages, ms: since(startedMs) }, 'hot pages fetched'),
        (err: unknown) => {
          if (either.aborted) return;
          this.#failed();
          this.#setAside(digest, err);
        },
      );
      this.#notePages(image);
      return image;
    } catch (error) {
      signal.throwIfAborted();
      this.#setAside(digest, error);
      return undefined;
    }
  }

  /** @returns False if there is no load order, or it cannot be used. */
  async #beginReplay({ from, order }: StartAdvice): Promise<boolean> {
    const startedMs = performance.now();
    try {
      const found = await order?.();
      if (found === undefined) return false;
      this.#replay = await this.#replayOf(found);
    } catch (error) {
      this.#abort.signal.throwIfAborted();
      this.#warn(error);
      return false;
    }
    if (this.#abort.signal.aborted) this.#replay?.stop();
    if (this.#replay !== undefined) this.#noteAdvice(this.#replay.advice);
    this.#replay?.done.then(
      (result) =>
        this.#dependencies.log.info(
          { from, ...result, ms: since(startedMs) },
          'load order replayed',
        ),
      (err: unknown) => {
        this.#failed();
        this.#warn(err);
      },
    );
    return true;
  }

  /** Undefined if the cache has it all. @throws {ObdError} `Corrupt` for the order of another image; errors of the registry. */
  async #replayOf({ chunks, layers: named }: LoadOrder): Promise<Replay | undefined> {
    const { cache, client } = this.#dependencies;
    const { host, repository, layers } = this.image;
    const isSame =
      named.length === layers.length &&
      named.every(({ digest }, i) => digest === layers[i]?.digest);
    if (!isSame) {
      throw new ObdError(ErrorCodes.Corrupt, 'Cannot use a load order: it names other layers');
    }
    const blobs: BlobHandle[] = [];
    const close = () => {
      for (const blob of blobs) blob.close();
    };
    try {
      for (const { digest, sizeBytes } of layers) {
        const ranges = await client.blobRanges(host, repository, digest, sizeBytes || undefined);
        blobs.push(await cache.openBlob(registrySource(ranges)));
      }
      this.#abort.signal.throwIfAborted();
    } catch (error) {
      close();
      throw error;
    }
    const inside = chunks.filter((_, i) => {
      const blob = blobs[chunks[i & ~1]!];
      return blob !== undefined && chunks[i | 1]! < blob.chunks;
    });
    let stored = 0;
    for (let i = 0; i < inside.length; i += 2) {
      if (blobs[inside[i]!]!.isStored(inside[i + 1]!)) stored++;
    }
    if (stored >= (inside.length / 2) * STORED_SHARE) {
      close();
      return undefined;
    }
    return new Replay(inside, blobs, cache);
  }

  #notePages({ index, progress }: HotImage): void {
    if (index.pages < KNOWN_PAGES_MIN) return;
    this.#noteAdvice({
      worth: index.pages / PAGES_PER_MISS,
      saved: () => progress.read / PAGES_PER_MISS,
      isComing: () => !progress.hasEnded,
    });
  }

  /** @param digest - Of the hot blob. */
  #setAside(digest: string, err: unknown): void {
    if (hasCode(err, ErrorCodes.Corrupt)) this.unfitHot = digest;
    this.#warn(err);
  }

  #warn(err: unknown): void {
    const { host, repository, manifest } = this.image;
    const about = { image: `${host}/${repository}@${manifest?.digest ?? ''}`, err };
    const what = 'load order set aside, reads fetch what they need';
    // A document that is wrong may have more than one fault, and others may be wrong as well.
    if (this.#hasWarned) this.#dependencies.log.info(about, what);
    else this.#dependencies.log.warn(about, what);
    this.#hasWarned = true;
  }
}

function pagesIn({ layers, runs }: HotIndex): LayerPages {
  const all: { layer: number; leaf: number; count: number }[] = [];
  for (let i = 0; i < runs.length; i += 3) {
    all.push({ layer: runs[i]!, leaf: runs[i + 1]!, count: runs[i + 2]! });
  }
  return { layers, runs: all };
}

function since(startedMs: number): number {
  return Math.round(performance.now() - startedMs);
}
