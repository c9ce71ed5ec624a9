/**
 * containerd's images: names for manifests and indexes in the content store. A named manifest or index is not garbage
 * collected.
 */
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { Image__Output } from '../grpc/gen/containerd/services/images/v1/Image.js';
import type { ImagesDefinition } from '../grpc/gen/containerd/services/images/v1/Images.js';
import type { GrpcClient } from '../grpc/grpc-client.js';
import { loadService } from '../grpc/proto.js';
import type { Labels } from './content-store.js';

const methods = loadService<ImagesDefinition>(
  'containerd/services/images/v1/images.proto',
  'containerd.services.images.v1.Images',
);

/** An index or a manifest. */
export interface ImageTarget {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export interface ImageRecord {
  /** By convention, the full reference. */
  readonly name: string;
  readonly target: ImageTarget;
  readonly labels: Labels;
}

export class ImageRecords {
  readonly #client: GrpcClient;

  constructor(client: GrpcClient) {
    this.#client = client;
  }

  /** @throws {ObdError} `NotFound`. */
  async get(name: string): Promise<ImageRecord> {
    const { image } = await this.#client.call(methods.Get, { name });
    return imageRecord(image);
  }

  /** @param filters - In containerd's filter language. An image is listed if it matches any of them; none lists all. */
  async list(filters: readonly string[]): Promise<ImageRecord[]> {
    const { images } = await this.#client.call(methods.List, { filters: [...filters] });
    return images.map(imageRecord);
  }

  /** Creates the record, or points an existing one to this target and keeps its labels. */
  async set(name: string, target: ImageTarget): Promise<void> {
    const image = { name, target };
    try {
      await this.#client.call(methods.Create, { image });
    } catch (error) {
      if (!hasCode(error, ErrorCodes.AlreadyExists)) throw error;
      await this.#client.call(methods.Update, { image, updateMask: { paths: ['target'] } });
    }
  }

  /**
   * Removes the record. Returns once containerd has collected all objects that only this record kept.
   * @throws {ObdError} `NotFound`.
   */
  async remove(name: string): Promise<void> {
    await this.#client.call(methods.Delete, { name, sync: true });
  }
}

function imageRecord(image: Image__Output | null): ImageRecord {
  const target = image?.target;
  if (!target) throw new ObdError(ErrorCodes.Io, 'Cannot use an answer of containerd: no target');
  const { mediaType, digest, size } = target;
  return { name: image.name, target: { mediaType, digest, size }, labels: image.labels };
}
