/**
 * Client of obd-blockd's control interface, for the snapshotter and obdctl.
 *
 * attach() and detach() are idempotent, so a caller that lost an answer can retry.
 */
import type { BlobAddress } from '../grpc/gen/obd/blockd/v1/BlobAddress.js';
import type { BlobPart } from '../grpc/gen/obd/blockd/v1/BlobPart.js';
import type { BlockdDefinition } from '../grpc/gen/obd/blockd/v1/Blockd.js';
import type { Device__Output } from '../grpc/gen/obd/blockd/v1/Device.js';
import type { EndRecordingResponse__Output } from '../grpc/gen/obd/blockd/v1/EndRecordingResponse.js';
import type { ExpectRequest } from '../grpc/gen/obd/blockd/v1/ExpectRequest.js';
import type { ListCacheResponse__Output } from '../grpc/gen/obd/blockd/v1/ListCacheResponse.js';
import type { ListResponse__Output } from '../grpc/gen/obd/blockd/v1/ListResponse.js';
import type { PrefetchProgress__Output } from '../grpc/gen/obd/blockd/v1/PrefetchProgress.js';
import type { PruneCacheResponse__Output } from '../grpc/gen/obd/blockd/v1/PruneCacheResponse.js';
import type { VerifyCacheResponse__Output } from '../grpc/gen/obd/blockd/v1/VerifyCacheResponse.js';
import { GrpcClient } from '../grpc/grpc-client.js';
import { loadService } from '../grpc/proto.js';

/** See proto/obd/blockd/v1/blockd.proto. */
export type Device = Device__Output;
export type Overview = ListResponse__Output;
export type Prefetch = PrefetchProgress__Output;
export type CacheContents = ListCacheResponse__Output;
export type RecordedStart = EndRecordingResponse__Output;
type Pruned = PruneCacheResponse__Output;

/** Opening an image asks the registry for each layer's index, and waits a minute for a registry that is away. */
const ATTACH_MS_MAX = 180_000;
const DETACH_MS_MAX = 60_000;
const LIST_MS_MAX = 10_000;
/** A registry is asked for each size that the manifest does not have. */
const PREFETCH_MS_MAX = 60_000;
/** A recording ends within 90 s; then tens of MiB are compressed and uploaded. */
const RECORDING_MS_MAX = 600_000;
const PRUNE_MS_MAX = 600_000;
/** 1 TiB at 100 MB/s. */
const VERIFY_MS_MAX = 4 * 3_600_000;

export const blockdMethods = loadService<BlockdDefinition>(
  'obd/blockd/v1/blockd.proto',
  'obd.blockd.v1.Blockd',
);

export class BlockdClient {
  readonly #client: GrpcClient;

  /** Connects with the first call. */
  constructor(socketPath: string) {
    this.#client = new GrpcClient(socketPath, { peer: 'obd-blockd', timeoutMs: LIST_MS_MAX });
  }

  /**
   * The device of the image that `configPath` describes; it answers reads when this resolves.
   *
   * @param id - [A-Za-z0-9._-]{1,64}
   * @throws {ObdError} `AlreadyExists` if the id is another image's, what opening the image and attaching a device throw,
   *   `Unavailable` if the daemon cannot be reached.
   */
  async attach(id: string, configPath: string, signal?: AbortSignal): Promise<Device> {
    const options = { timeoutMs: ATTACH_MS_MAX, signal };
    return await this.#client.call(blockdMethods.Attach, { id, configPath }, options);
  }

  /** Takes the device away, if it is there. @throws {ObdError} `Busy` while it is in use, `Unavailable`. */
  async detach(id: string): Promise<void> {
    await this.#client.call(blockdMethods.Detach, { id }, { timeoutMs: DETACH_MS_MAX });
  }

  /**
   * Fails the reads of a device that wait for a registry. For a device whose last mount is being taken away: the kernel
   * waits for its reads, those of killed processes included.
   * @throws {ObdError} `Unavailable`.
   */
  async endReads(id: string): Promise<void> {
    await this.#client.call(blockdMethods.EndReads, { id });
  }

  async list(): Promise<Device[]> {
    return (await this.overview()).devices;
  }

  /** The devices, and which transports there are for new ones. */
  async overview(): Promise<Overview> {
    return await this.#client.call(blockdMethods.List, {});
  }

  /**
   * Begins to fetch blobs into the cache, ahead of the first start of their image.
   * @throws {ObdError} `Unavailable`, and what asking the registry for a size throws.
   */
  async prefetch(name: string, blobs: readonly BlobAddress[]): Promise<Prefetch> {
    const request = { name, blobs: [...blobs] };
    return await this.#client.call(blockdMethods.Prefetch, request, { timeoutMs: PREFETCH_MS_MAX });
  }

  /**
   * Asks the registry for a blob by fetching parts of it into the cache. Resolves when the first bytes have come.
   *
   * @param parts - Within the blob's size, of 64 MiB at most together.
   * @throws {ObdError} `NotFound`, `Unauthorized`, `Unavailable`, `Registry`; also `Unavailable` for a daemon that cannot be
   *   reached, `Unsupported` for one of a version before; the signal's reason.
   */
  async probe(blob: BlobAddress, parts: readonly BlobPart[], signal: AbortSignal): Promise<void> {
    await this.#client.call(blockdMethods.Probe, { blob, parts: [...parts] }, { signal });
  }

  /**
   * Tells of an image that is being pulled, whose start is fetched ahead.
   *
   * @throws {ObdError} `Unavailable` for a daemon that cannot be reached, `Unsupported` for one of a version before.
   */
  async expect(image: ExpectRequest): Promise<void> {
    await this.#client.call(blockdMethods.Expect, image);
  }

  /**
   * Has the next start of an image recorded.
   *
   * @param untilQuiet - Whether the recording ends by itself.
   * @returns The key for endRecording().
   * @throws {ObdError} `FailedPrecondition` while a device of the image is attached, `Unavailable`.
   */
  async record(image: ExpectRequest, untilQuiet: boolean): Promise<string> {
    return (await this.#client.call(blockdMethods.Record, { image, untilQuiet })).key;
  }

  /**
   * Ends a recording, while its device is attached.
   *
   * @param publish - Whether obd-blockd publishes load order and hot blob.
   * @throws {ObdError} `NotFound` or `FailedPrecondition` if nothing was recorded, `Unavailable`; what publishing throws.
   */
  async endRecording(key: string, publish: boolean, signal?: AbortSignal): Promise<RecordedStart> {
    const options = { timeoutMs: RECORDING_MS_MAX, signal };
    return await this.#client.call(blockdMethods.EndRecording, { key, publish }, options);
  }

  async cache(): Promise<CacheContents> {
    return await this.#client.call(blockdMethods.ListCache, {});
  }

  /** Checks a blob of cache(). @throws {ObdError} `NotFound` if it is gone. */
  async verifyCache(registry: string, digest: string): Promise<VerifyCacheResponse__Output> {
    const options = { timeoutMs: VERIFY_MS_MAX };
    return await this.#client.call(blockdMethods.VerifyCache, { registry, digest }, options);
  }

  /** Removes the blobs that no device uses. */
  async pruneCache(): Promise<Pruned> {
    return await this.#client.call(blockdMethods.PruneCache, {}, { timeoutMs: PRUNE_MS_MAX });
  }

  close(): void {
    this.#client.close();
  }
}
