/** Images that are fetched into the cache ahead of their first start, by name. */
import { byteText } from '../byte-text.js';
import type { BlobSource } from '../cache/blob-source.js';
import { ErrorCodes, ObdError } from '../errors.js';
import type { BlobAddress } from '../image/open-image.js';
import type { RegistryClient } from '../registry/registry-client.js';
import type { BackgroundFill, FillProgress } from './background-fill.js';
import { registrySource } from './registry-source.js';

/** The oldest one that is not under way makes room for a further one. */
const PREFETCHES_MAX = 64;
/** The layers of the largest image that can be opened. */
const BLOBS_MAX = 255;
const NAME_CHARACTERS_MAX = 512;

export class Prefetches {
  readonly #fill: BackgroundFill;
  readonly #client: Pick<RegistryClient, 'blobRanges'>;
  readonly #capacityBytes: number;
  /** The digests of the blobs by name, the oldest first. */
  readonly #digests = new Map<string, string>();

  /** @param capacityBytes - Of the cache. */
  constructor(
    fill: BackgroundFill,
    client: Pick<RegistryClient, 'blobRanges'>,
    capacityBytes: number,
  ) {
    this.#capacityBytes = capacityBytes;
    this.#fill = fill;
    this.#client = client;
  }

  /**
   * Fetches the blobs in the background. While a prefetch of these blobs is under way by that name, it is that one; it
   * replaces one of other blobs, and one that fails or finds no room.
   *
   * @throws {ObdError} `InvalidArgument` for no or too many blobs; `FailedPrecondition` while PREFETCHES_MAX are under way,
   *   and for an image that is larger than the cache; what asking the registry for a size throws.
   */
  async start(name: string, blobs: readonly BlobAddress[]): Promise<FillProgress> {
    const digests = blobs.map(({ digest }) => digest).join(' ');
    const before = this.progressOf(name);
    const isUnderWay = before?.state === 'waiting' || before?.state === 'filling';
    if (isUnderWay && this.#digests.get(name) === digests) return before;
    const isSound = name !== '' && name.length <= NAME_CHARACTERS_MAX && blobs.length > 0;
    if (!isSound || blobs.length > BLOBS_MAX) {
      const message = `Cannot prefetch ${JSON.stringify(name.slice(0, 100))}: a name, and 1 to ${BLOBS_MAX} blobs are needed, not ${blobs.length}`;
      throw new ObdError(ErrorCodes.InvalidArgument, message);
    }
    const sources = new Map<string, BlobSource>();
    for (const { host, repository, digest, sizeBytes } of blobs) {
      const ranges = await this.#client.blobRanges(
        host,
        repository,
        digest,
        sizeBytes || undefined,
      );
      sources.set(digest, registrySource(ranges));
    }
    const bytes = [...sources.values()].reduce((sum, { key }) => sum + key.sizeBytes, 0);
    if (bytes > this.#capacityBytes) {
      const message = `Cannot prefetch ${name}: it has ${byteText(bytes)}, and the cache has room for ${byteText(this.#capacityBytes)}; raise cache_size`;
      throw new ObdError(ErrorCodes.FailedPrecondition, message);
    }
    this.#makeRoom(name);
    this.#digests.set(name, digests);
    const times = { delayMs: 0, idleMs: 0 };
    this.#fill.add({ id: jobOf(name), sources: [...sources.values()], ...times, isLasting: false });
    return this.progressOf(name)!;
  }

  progressOf(name: string): FillProgress | undefined {
    return this.#fill.progressOf(jobOf(name));
  }

  list(): (FillProgress & { readonly name: string })[] {
    return [...this.#digests.keys()].map((name) => ({ name, ...this.progressOf(name)! }));
  }

  /** After blobs were removed from the cache: those that are complete may not be so any more. */
  forgetComplete(): void {
    for (const { name, state } of this.list()) if (state === 'complete') this.#drop(name);
  }

  #makeRoom(name: string): void {
    this.#drop(name);
    if (this.#digests.size < PREFETCHES_MAX) return;
    const isUnderWay = ({ state }: FillProgress) => state === 'waiting' || state === 'filling';
    const done = this.list().find((each) => !isUnderWay(each));
    if (done !== undefined) {
      this.#drop(done.name);
      return;
    }
    const message = `Cannot prefetch ${name}: ${PREFETCHES_MAX} prefetches are under way; wait for one of them`;
    throw new ObdError(ErrorCodes.FailedPrecondition, message);
  }

  #drop(name: string): void {
    this.#fill.remove(jobOf(name));
    this.#digests.delete(name);
  }
}

function jobOf(name: string): string {
  return `prefetch of ${name}`;
}
