/**
 * containerd's content store: blobs by digest, with labels. containerd checks each written blob against its digest and
 * size, and stores it whole or not at all.
 */
import { randomUUID } from 'node:crypto';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { ContentDefinition } from '../grpc/gen/containerd/services/content/v1/Content.js';
import type { Info__Output } from '../grpc/gen/containerd/services/content/v1/Info.js';
import type { GrpcClient } from '../grpc/grpc-client.js';
import { loadService } from '../grpc/proto.js';

const methods = loadService<ContentDefinition>(
  'containerd/services/content/v1/content.proto',
  'containerd.services.content.v1.Content',
);

/** Data bytes of one message. containerd takes up to 16 MiB, and answers each message before we send the next. */
const WRITE_BYTES = 1 << 20;

export type Labels = Readonly<Record<string, string>>;

export interface ContentInfo {
  readonly digest: string;
  readonly sizeBytes: number;
  readonly labels: Labels;
  /** Unix time in ms of the last change of its labels; 0 if containerd does not say. */
  readonly updatedMs: number;
}

export interface ContentDescriptor {
  readonly digest: string;
  readonly size: number;
}

export class ContentStore {
  readonly #client: GrpcClient;

  constructor(client: GrpcClient) {
    this.#client = client;
  }

  /** @throws {ObdError} `NotFound`. */
  async info(digest: string): Promise<ContentInfo> {
    const { info } = await this.#client.call(methods.Info, { digest });
    return contentInfo(info);
  }

  /** Returns the labels of a blob, or none if there is no such blob. */
  async labels(digest: string): Promise<Labels> {
    try {
      return (await this.info(digest)).labels;
    } catch (error) {
      if (hasCode(error, ErrorCodes.NotFound)) return {};
      throw error;
    }
  }

  /** @param filters - In containerd's filter language. A blob is listed if it matches any of them; none lists all. */
  async *list(filters: readonly string[]): AsyncGenerator<ContentInfo, void, undefined> {
    for await (const { info } of this.#client.stream(methods.List, { filters: [...filters] })) {
      for (const each of info) yield contentInfo(each);
    }
  }

  /** Reads a whole blob in pieces of up to 1 MiB. @throws {ObdError} `NotFound`, while it is iterated. */
  async *read(digest: string): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const { data } of this.#client.stream(methods.Read, { digest })) yield data;
  }

  /** Sets these labels and leaves the others. @throws {ObdError} `NotFound`. */
  async setLabels(digest: string, labels: Labels): Promise<void> {
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    if (paths.length === 0) return;
    await this.#client.call(methods.Update, { info: { digest, labels }, updateMask: { paths } });
  }

  /**
   * Stores a blob with its labels. If containerd has the blob already, this sets the labels only and reads none of
   * `pieces`. On failure it removes the part written so far.
   *
   * @returns Whether the blob is new.
   * @throws {ObdError} `FailedPrecondition` if the bytes do not match the descriptor; any error that `pieces` throws.
   */
  async write(
    descriptor: ContentDescriptor,
    labels: Labels,
    pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<boolean> {
    // A unique name. Under a common name this call would wait for any other client that fetches the same blob.
    const ref = `obd-ts-${randomUUID()}-${descriptor.digest}`;
    try {
      await this.#ingest(ref, descriptor, labels, pieces);
      return true;
    } catch (error) {
      if (!hasCode(error, ErrorCodes.AlreadyExists)) {
        await this.#abort(ref);
        throw error;
      }
    }
    await this.setLabels(descriptor.digest, labels);
    return false;
  }

  async #ingest(
    ref: string,
    { digest, size }: ContentDescriptor,
    labels: Labels,
    pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void> {
    const writing = this.#client.converse(methods.Write);
    try {
      const start = { ref, total: size, expected: digest };
      let { offset } = await writing.ask({ ...start, action: 'STAT' });
      // containerd has the blob in another namespace and shares it: all bytes are there at once.
      if (offset !== size) {
        for await (const data of gathered(pieces, WRITE_BYTES)) {
          ({ offset } = await writing.ask({ ref, action: 'WRITE', offset, data }));
        }
      }
      await writing.ask({ ...start, action: 'COMMIT', offset, labels });
    } finally {
      writing.close();
    }
  }

  async #abort(ref: string): Promise<void> {
    try {
      // This call must also work after an abort: hence a signal that never aborts.
      await this.#client.call(methods.Abort, { ref }, { signal: new AbortController().signal });
    } catch {
      // The write never began, or containerd is down; then its garbage collection removes the rest with the lease.
    }
  }
}

function contentInfo(info: Info__Output | null): ContentInfo {
  if (info === null)
    throw new ObdError(ErrorCodes.Io, 'Cannot use an answer of containerd: no info');
  const { digest, size: sizeBytes, labels, updatedAt } = info;
  const updatedMs = updatedAt === null ? 0 : updatedAt.seconds * 1000 + updatedAt.nanos / 1e6;
  return { digest, sizeBytes, labels, updatedMs };
}

/** The same bytes in pieces of `bytes`, the last one shorter. */
async function* gathered(
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  bytes: number,
): AsyncGenerator<Buffer, void, undefined> {
  let held: Uint8Array[] = [];
  let heldBytes = 0;
  for await (const piece of pieces) {
    held.push(piece);
    heldBytes += piece.length;
    if (heldBytes < bytes) continue;
    const all = Buffer.concat(held);
    const whole = all.length - (all.length % bytes);
    for (let at = 0; at < whole; at += bytes) yield all.subarray(at, at + bytes);
    held = [all.subarray(whole)];
    heldBytes = all.length - whole;
  }
  if (heldBytes > 0) yield Buffer.concat(held);
}
