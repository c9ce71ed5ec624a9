/**
 * containerd's content store: blobs by digest, with labels. What is written is checked against its digest and size by
 * containerd, and is there as a whole or not at all.
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

/** Of one message; containerd takes up to 16 MiB, and answers each before the next is sent. */
const WRITE_BYTES = 1 << 20;

export type Labels = Readonly<Record<string, string>>;

export interface ContentInfo {
  readonly digest: string;
  readonly sizeBytes: number;
  readonly labels: Labels;
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

  /** The labels of a blob; none if it is not there. */
  async labels(digest: string): Promise<Labels> {
    try {
      return (await this.info(digest)).labels;
    } catch (error) {
      if (hasCode(error, ErrorCodes.NotFound)) return {};
      throw error;
    }
  }

  /** @param filters - In containerd's filter language; one that matches is enough, and none means all. */
  async *list(filters: readonly string[]): AsyncGenerator<ContentInfo, void, undefined> {
    for await (const { info } of this.#client.stream(methods.List, { filters: [...filters] })) {
      for (const each of info) yield contentInfo(each);
    }
  }

  /** A blob, whole, in pieces of up to 1 MiB. @throws {ObdError} `NotFound`, while it is iterated. */
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
   * Stores a blob with its labels. One that is there already keeps its bytes and gets the labels too; then none of
   * `pieces` are asked for. What was written so far goes if it does not come to an end.
   *
   * @returns Whether it is new.
   * @throws {ObdError} `FailedPrecondition` if the bytes are not what the descriptor says; what `pieces` throws.
   */
  async write(
    descriptor: ContentDescriptor,
    labels: Labels,
    pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<boolean> {
    // A name of our own: under a common one we would wait for whoever else is fetching the same blob.
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
      // All of it at once if containerd has it for another namespace and shares.
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
      // Also when we are to stop: hence a signal that never is.
      await this.#client.call(methods.Abort, { ref }, { signal: new AbortController().signal });
    } catch {
      // It never began, or containerd is gone, whose garbage collection has it with the lease.
    }
  }
}

function contentInfo(info: Info__Output | null): ContentInfo {
  if (info === null)
    throw new ObdError(ErrorCodes.Io, 'Cannot use an answer of containerd: no info');
  return { digest: info.digest, sizeBytes: info.size, labels: info.labels };
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
