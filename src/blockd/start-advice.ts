/**
 * Finds what is known of an image's start, before the start:
 *
 *   registry     artifacts with the image's manifest as their subject: a hot blob, a load order (referrers, or the tag for them)
 *   this host    the load order of an earlier start here
 *   the image    the load order that its manifest names: obdconv predicted it
 *
 * in this order, as a hot blob takes the fewest bytes; a published load order without one comes after the one of this host. Where
 * one cannot be used, the next is tried. That an image has none is remembered for NONE_MS.
 */
import { readAheadKib } from '../blockdev/read-ahead.js';
import { ErrorCodes, ObdError } from '../errors.js';
import type { KeptOrders } from '../load-order/kept-orders.js';
import { DOCUMENT_BYTES_MAX, type LoadOrder, parseLoadOrder } from '../load-order/load-order.js';
import {
  HOT_PAGES_ANNOTATION,
  LOAD_ORDER_ANNOTATION,
  type NamedBlob,
  parseNamedBlob,
  READ_AHEAD_ANNOTATION,
} from '../load-order/load-order-annotations.js';
import { LOAD_ORDER_ARTIFACT } from '../load-order/order-artifact.js';
import { type OrderWish, sameStart, selectOrder, variantOf } from '../load-order/select-order.js';
import type { ReferrerDescriptor } from '../oci/referrer.js';
import type { RegistryClient } from '../registry/registry-client.js';
import { verifiedBlob } from '../registry/verified-blob.js';
import type { ExpectedImage } from './expected-image.js';
import type { HotBlobAddress } from './hot-images.js';
import { LapsingNames } from './lapsing-names.js';

/** For all requests together. It is advice, so no start waits for a slow answer. */
const FIND_MS_MAX = 5_000;
const NONE_MS = 600_000;
/** For a registry that has refused or was away: as long as its other answers are kept. */
const FAILED_MS = 60_000;
/** Many times the images that a machine pulls in that time. */
const NONE_MAX = 1024;

export interface StartAdvice {
  readonly hot: HotBlobAddress | undefined;
  /** Whether its pages were recorded without what the kernel reads beyond them. */
  readonly isExact: boolean;
  /** Where the pages or chunks were learnt, for the log. */
  readonly from: 'registry' | 'host' | 'image';
  /** Reads the load order; undefined if there is none. */
  readonly order: (() => Promise<LoadOrder | undefined>) | undefined;
}

export class StartAdvices {
  readonly #client: Pick<RegistryClient, 'referrers' | 'readBlob'>;
  readonly #kept: KeptOrders;
  /** Images that are taken to have none, by host, repository, manifest and variant of the start. */
  readonly #none = new LapsingNames(NONE_MAX);

  constructor(client: Pick<RegistryClient, 'referrers' | 'readBlob'>, kept: KeptOrders) {
    this.#client = client;
    this.#kept = kept;
  }

  /** All that may be known, the best first. Looks for each when the caller asks for it. @throws the signal's reason. */
  async *find(image: ExpectedImage, signal: AbortSignal): AsyncGenerator<StartAdvice> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(FIND_MS_MAX)]);
    const published = await this.published(image, limit).catch((error: unknown) => {
      signal.throwIfAborted();
      // The registry may have no such list, refuse it, or be slow: reads will show what is wrong with it.
      if (!(error instanceof ObdError || limit.aborted)) throw error;
      this.#none.add(nameOf(image), FAILED_MS);
      return undefined;
    });
    if (published?.hot !== undefined) yield published;
    const digests = image.layers.map(({ digest }) => digest);
    const order = async () => await this.#kept.find(digests, variantOf(image.wish));
    yield { hot: undefined, isExact: false, from: 'host', order };
    if (published !== undefined && published.hot === undefined) yield published;
    const named = image.loadOrder;
    if (named === undefined || isOtherCommand(image.wish)) return;
    yield {
      hot: undefined,
      isExact: false,
      from: 'image',
      order: async () => await this.#read(image, named, signal),
    };
  }

  /** Asks the registry for the image's artifacts. @throws {ObdError} as RegistryClient.referrers(). */
  async published(image: ExpectedImage, signal: AbortSignal): Promise<StartAdvice | undefined> {
    const key = nameOf(image);
    if (this.#none.has(key)) return undefined;
    const found = await this.#referrers(image, signal);
    if (found === undefined) return undefined;
    const chosen = selectOrder(found, image.wish);
    if (chosen === undefined) this.#none.add(key, NONE_MS);
    return chosen && this.#adviceIn(chosen, image);
  }

  /**
   * Asks the registry for the order into which one of the image's start is merged.
   *
   * @throws {ObdError} as RegistryClient.referrers().
   */
  async ofSameStart(
    image: ExpectedImage,
    signal: AbortSignal,
  ): Promise<(StartAdvice & { readonly artifact: ReferrerDescriptor }) | undefined> {
    const artifact = sameStart((await this.#referrers(image, signal)) ?? [], image.wish);
    return artifact && { ...this.#adviceIn(artifact, image), artifact };
  }

  /** Undefined for an image whose manifest is not known. */
  async #referrers(
    { host, repository, manifest }: ExpectedImage,
    signal: AbortSignal,
  ): Promise<readonly ReferrerDescriptor[] | undefined> {
    if (manifest === undefined) return undefined;
    const { digest } = manifest;
    return await this.#client.referrers(host, repository, digest, LOAD_ORDER_ARTIFACT, signal);
  }

  /** An artifact was published: it may be found now. */
  forget(image: ExpectedImage): void {
    this.#none.delete(nameOf(image));
  }

  #adviceIn({ annotations }: ReferrerDescriptor, image: ExpectedImage): StartAdvice {
    const { host, repository } = image;
    const named = parseNamedBlob(annotations[LOAD_ORDER_ANNOTATION] ?? '');
    const hot = parseNamedBlob(annotations[HOT_PAGES_ANNOTATION] ?? '');
    return {
      hot: hot && { host, repository, ...hot },
      isExact: isExact(annotations[READ_AHEAD_ANNOTATION]),
      from: 'registry',
      order: named && (async () => await this.#read(image, named, undefined)),
    };
  }

  async #read(
    { host, repository }: ExpectedImage,
    { digest, sizeBytes }: NamedBlob,
    signal: AbortSignal | undefined,
  ): Promise<LoadOrder> {
    const name = `${digest} of ${host}/${repository}`;
    const label = `load order ${name}`;
    if (sizeBytes > DOCUMENT_BYTES_MAX) {
      const message = `Cannot use the ${label}: ${sizeBytes} bytes are more than ${DOCUMENT_BYTES_MAX}`;
      throw new ObdError(ErrorCodes.Corrupt, message, { digest });
    }
    const descriptor = { mediaType: '', digest, size: sizeBytes };
    const pieces: Uint8Array[] = [];
    const limit = AbortSignal.timeout(FIND_MS_MAX);
    const either = signal === undefined ? limit : AbortSignal.any([signal, limit]);
    const blob = this.#client.readBlob(host, repository, descriptor, either);
    for await (const piece of verifiedBlob(blob, descriptor, label)) pieces.push(piece);
    return parseLoadOrder(Buffer.concat(pieces), name);
  }
}

function nameOf({ host, repository, manifest, wish }: ExpectedImage): string {
  return `${host}/${repository}@${manifest?.digest} ${variantOf(wish)}`;
}

function isExact(readAheadBytes = ''): boolean {
  return /^\d{1,9}$/.test(readAheadBytes) && Number(readAheadBytes) <= readAheadKib(true) * 1024;
}

/** Whether the start is known to run another command line than the image's own, of which predictions are. */
function isOtherCommand({ command, imageCommand }: OrderWish): boolean {
  return command !== '' && imageCommand !== '' && command !== imageCommand;
}
