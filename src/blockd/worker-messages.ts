/**
 * All messages between the main thread and the threads that serve devices. Messages name devices by their ids.
 *
 *   main thread     control API, table of devices, block cache and registry, the NBD socket and its handshakes
 *   worker threads  each its own devices: image, layers, decoded blocks, transport, NBD connections
 *
 * A worker answers a read of cached bytes in the tick in which it arrives, without a message: descriptors belong to the
 * process, and the set of cached chunks is in shared memory (src/cache/blob-reader.ts). On a miss the worker calls the
 * main thread, which fetches for all workers (blob-calls.ts). So a busy device, or an image that is slow to decode,
 * delays only devices of the same worker, and never the control API.
 *
 * Messages arrive in the order in which they were sent. The code relies on that: messages about a blob come before its
 * close, and the connections of an export before its end.
 *
 * A bug that ends a worker, or blocks it, ends the daemon: the state of the worker's operations is unknown, and finding
 * devices again is a path that is taken and tested anyway (recovery.ts).
 */
import type { NegotiatedOptions } from '../blockdev/nbd/protocol.js';
import type { TransportName } from '../blockdev/transport.js';
import type { HotIndex } from '../hot-blob/hot-index.js';
import type { FetchOrder } from '../image/fetch-order.js';
import type { SharedIndexAccount } from '../io/index-budget.js';
import type { BlobCalls, OpenedBlob } from './blob-calls.js';
import type { ExpectedImage } from './expected-image.js';
import type { RequestNote } from './request-notes.js';
import type { SerializedError } from './serialized-error.js';

/** The settings that a worker is started with. */
export interface WorkerSettings {
  /** As makeTransports() takes them. */
  readonly nbdSocketPath: string;
  readonly directory: string;
  /** How long a read of a mounted disk may wait for its registry. */
  readonly readDeadlineMs: number;
  /** For the decoded blocks of this thread. */
  readonly decodedBytes: number;
}

/** The facts about an image that the main thread needs. */
export interface OpenedDisk {
  readonly label: string;
  readonly sizeBytes: number;
  readonly layers: number;
  readonly remoteBytes: number;
  /** Remote layers without checksums. */
  readonly uncheckedLayers: number;
  /** How many layers are remote, and of how many of those the reads are proved by hash trees. */
  readonly remoteLayers: number;
  readonly provedLayers: number;
  /** The chunks that the image's trace names. Undefined for an image without trace. */
  readonly order: FetchOrder | undefined;
  /** Why the trace is unusable. */
  readonly traceProblem: SerializedError | undefined;
  /** Whether the background fill fetches the rest of the image; undefined if its config does not say. */
  readonly fillsImage: boolean | undefined;
  /** As transmissionFlags() gives them. */
  readonly flags: number;
}

interface OfDevice {
  readonly id: string;
}

interface ToAttach extends OfDevice {
  readonly transport: TransportName;
}

interface Range {
  readonly offset: number;
  readonly length: number;
}

/** A file of a blob. */
export interface WrittenBlob {
  readonly digest: string;
  readonly sizeBytes: number;
}

/**
 * @param path - Of a new file.
 * @returns Undefined if no hash tree proves any of the pages.
 * @throws {ObdError} read errors; `NotFound` if the device is gone.
 */
export type WriteHot = (runs: Uint32Array, path: string) => Promise<WrittenBlob | undefined>;

/** The hot pages of an image, for another thread. */
export interface SharedHotPages {
  readonly file: OpenedBlob;
  readonly index: HotIndex;
  readonly indexBytes: number;
  /** Of a HotProgress. */
  readonly progress: SharedArrayBuffer;
  /** Whether they are what a start reads, and nothing around it: they may be read ahead (read-pages.ts). */
  readonly isExact: boolean;
}

/** Pages that were read ahead: those known of the start, or the files of an image that it reads most of. */
export type PagesRead = 'known' | 'stored';

/** How a device is to serve its start. */
export interface StartTerms {
  /** Undefined if there are none. */
  readonly hot: SharedHotPages | undefined;
  /** How the start is recorded, if a client wants that. */
  readonly recording: { readonly untilQuiet: boolean } | undefined;
}

/** Calls from the main thread to a worker. `close` ends everything of a device but the device itself. */
export type WorkerCalls = {
  /** Charges `memory` with the indexes of the image. */
  open(
    image: OfDevice & {
      readonly configPath: string;
      /** Whether a start follows, whose trace is wanted. */
      readonly isStart: boolean;
      readonly memory: SharedIndexAccount;
    },
  ): OpenedDisk;
  /** Answers with the path of the device. */
  attach(device: ToAttach): string;
  /** Its start reads most of the image: its files are read into the kernel's cache as they come. */
  readStored(device: OfDevice): void;
  /** The pages of its start do not come: its device reads ahead like any other. */
  forgetKnown(device: OfDevice): void;
  /** Ends what records the start; `recorded` comes first, if anything was read. */
  endRecording(device: OfDevice): void;
  /**
   * Writes a hot blob of these runs of pages (src/hot-blob/hot-blob-writer.ts) to a new file. Undefined, and no file, if no hash
   * tree proves any of them.
   */
  writeHot(
    wanted: OfDevice & { readonly runs: Uint32Array; readonly path: string },
  ): WrittenBlob | undefined;
  resume(device: ToAttach): string;
  /** A failure is part of the answer, as `isGone` is then needed too. */
  detach(device: OfDevice): {
    readonly isGone: boolean;
    readonly error: SerializedError | undefined;
  };
  /** Whether the requests of the device are noted by `request` from now on. */
  observe(device: OfDevice & { readonly isObserved: boolean }): void;
  /** Fails the reads that wait for bytes now. */
  endReads(device: OfDevice): void;
  release(device: OfDevice): void;
  close(device: OfDevice): void;
  /** Answers when the connection has ended. `fd` is the worker's from now on. */
  connection(
    connection: OfDevice & NegotiatedOptions & { readonly fd: number; readonly rest: Uint8Array },
  ): void;
  endConnections(device: OfDevice): void;
  /** Answers unless the thread is stuck. */
  beat(nothing: undefined): void;
};

/** Calls from a worker to the main thread. The device calls have no answer: they are sent by notify(). */
export type MainCalls = BlobCalls & {
  /** The device answers EIO from now on: see TransportSettings.onDeath. */
  died(device: OfDevice): void;
  request(request: OfDevice & { readonly note: RequestNote }): void;
  /** An image is about to be opened. */
  starting(
    image: OfDevice & {
      readonly isStart: boolean;
      readonly image: ExpectedImage;
    },
  ): StartTerms;
  /** The reads of a start: an encoded load order. */
  recorded(start: OfDevice & { readonly order: Uint8Array }): void;
  /** Its start walks through the whole tree of the image. */
  walked(device: OfDevice): void;
  /** Pages of the start were read into the kernel's cache; or why not. */
  pagesRead(
    result: OfDevice & {
      readonly what: PagesRead;
      readonly pages: number;
      readonly ms: number;
      readonly error: SerializedError | undefined;
    },
  ): void;
  readError(failure: OfDevice & Range & { readonly error: SerializedError }): void;
};
