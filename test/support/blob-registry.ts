/** A registry of blobs in memory. */
import { ErrorCodes, ObdError } from '../../src/errors.js';
import { BlobDouble } from './blob-double.js';

export class BlobRegistry {
  readonly #blobs = new Map<string, BlobDouble>();

  /** @returns Its digest. */
  add(bytes: Uint8Array): BlobDouble {
    const blob = new BlobDouble(bytes);
    this.#blobs.set(blob.digest, blob);
    return blob;
  }

  get requests(): number {
    return this.#sum(({ requests }) => requests.length);
  }

  get requestedBytes(): number {
    return this.#sum(({ requestedBytes }) => requestedBytes);
  }

  async find(
    host: string,
    repository: string,
    digest: string,
    sizeBytes: number | undefined,
  ): Promise<BlobDouble> {
    const found = this.#blobs.get(digest);
    if (found !== undefined && (sizeBytes ?? found.sizeBytes) === found.sizeBytes) return found;
    const message = `Cannot read ${digest}: ${host}/${repository} does not have it`;
    throw new ObdError(ErrorCodes.NotFound, message, { digest });
  }

  #sum(of: (blob: BlobDouble) => number): number {
    return [...this.#blobs.values()].reduce((sum, blob) => sum + of(blob), 0);
  }
}
