/**
 * How a worker thread reads blobs of the main thread's cache: the calls, and both ends of them.
 *
 *   worker        RemoteBlobs.open()  ->  BlobReader, whose link sends these calls
 *   main thread   blobHandlers()      ->  BlobHandle of the cache, one for each reader
 *
 * Only openBlob and fetch have an answer. Calls arrive in the order in which they were sent, so those of a blob arrive
 * before its closeBlob.
 */
import { type BlobLink, BlobReader, type BlobShare } from '../cache/blob-reader.js';
import type { FetchOptions } from '../cache/flight.js';
import { OverflowChunks, type OverflowCopies } from '../cache/overflow-chunks.js';
import type { BlobAddress } from '../image/open-image.js';
import type { DemandWatch } from './demand-watch.js';
import type { Caller, Handlers } from './thread-calls.js';

interface Range {
  readonly offset: number;
  readonly length: number;
}

interface OfBlob {
  /** From the answer of openBlob. */
  readonly blob: number;
}

/** A blob that the device `id` needs. */
export interface BlobRequest {
  readonly id: string;
  readonly address: BlobAddress;
}

/** Calls from a worker to the main thread. */
export type BlobCalls = {
  openBlob(blob: BlobRequest): OpenedBlob;
  /** Answers with the chunks that found no space on the disk; undefined if the blob was closed first. */
  fetch(range: OfBlob & Range & FetchOptions): OverflowCopies | undefined;
  invalidated(range: OfBlob & Range): void;
  unreadable(range: OfBlob & Range & { readonly problem: string }): void;
  closeBlob(blob: OfBlob): void;
};

/** The main thread's end of one reader: a BlobHandle. */
type SharedLink = BlobLink & { share(): BlobShare };

/** A blob that is open for a worker: its number in further calls. */
export type OpenedBlob = OfBlob & { readonly share: BlobShare };

/**
 * The main thread's end of one worker's blobs.
 *
 * @param demand - Learns of reads that wait.
 */
export function blobHandlers(
  open: (request: BlobRequest) => Promise<SharedLink>,
  demand: DemandWatch,
): { readonly handlers: Handlers<BlobCalls>; readonly add: (link: SharedLink) => OpenedBlob } {
  const blobs = new Map<number, SharedLink>();
  let last = 0;
  const add = (link: SharedLink) => {
    const blob = ++last;
    blobs.set(blob, link);
    return { blob, share: link.share() };
  };
  const handlers: Handlers<BlobCalls> = {
    openBlob: async (request) => add(await open(request)),
    fetch: async ({ blob, offset, length, urgency, waitMs }) => {
      const fetch = async () => await blobs.get(blob)?.fetch(offset, length, { urgency, waitMs });
      return await (urgency === 'demand' ? demand.during(fetch) : fetch());
    },
    invalidated: ({ blob, offset, length }) => blobs.get(blob)?.invalidated(offset, length),
    unreadable: ({ blob, offset, length, problem }) =>
      blobs.get(blob)?.unreadable(offset, length, problem),
    closeBlob: ({ blob }) => {
      blobs.get(blob)?.close();
      blobs.delete(blob);
    },
  };
  return { handlers, add };
}

/** The worker's end: its readers, and the copies of chunks without space on the disk, which they share. */
export class RemoteBlobs {
  readonly #main: Caller<BlobCalls>;
  readonly #overflow = new OverflowChunks();

  constructor(main: Caller<BlobCalls>) {
    this.#main = main;
  }

  /** @throws {ObdError} what opening the blob throws on the main thread. */
  async open(request: BlobRequest): Promise<BlobReader> {
    return this.reader(await this.#main.call('openBlob', request));
  }

  /** Reads a blob that the main thread has opened. */
  reader({ blob, share }: OpenedBlob): BlobReader {
    const main = this.#main;
    return new BlobReader(share, this.#overflow, {
      fetch: (offset, length, options) => main.call('fetch', { blob, offset, length, ...options }),
      invalidated: (offset, length) => main.notify('invalidated', { blob, offset, length }),
      unreadable: (offset, length, problem) =>
        main.notify('unreadable', { blob, offset, length, problem }),
      close: () => main.notify('closeBlob', { blob }),
    });
  }
}
