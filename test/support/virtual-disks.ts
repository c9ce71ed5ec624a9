/** VirtualDisks for tests: bytes in memory, and reads that wait until the test releases them. */
import type { VirtualDisk } from '../../src/blockdev/virtual-disk.js';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import { MemoryFile } from './memory-file.js';

/** Every page different, and none of zeroes unless asked for. */
export function pagesOf(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; at += 4) bytes.writeUInt32LE((at * 2654435761) >>> 0 || 1, at);
  return bytes;
}

/** All bytes local. Extents are told apart by 512-byte sectors of zeroes. */
export class MemoryDisk extends MemoryFile implements VirtualDisk {
  /** Bytes of all reads that could be answered. */
  readBytes = 0;

  override tryRead(target: Uint8Array, offset: number): boolean {
    this.readBytes += target.length;
    return super.tryRead(target, offset);
  }

  extentAt(offset: number, length: number): number {
    const zeroAt = (at: number) => {
      const sector = at - (at % 512);
      return this.bytes.subarray(sector, sector + 512).every((byte) => byte === 0);
    };
    const zero = zeroAt(offset);
    let end = offset;
    while (end < offset + length && zeroAt(end) === zero) end = end - (end % 512) + 512;
    const alike = Math.min(end - offset, length);
    return zero ? -alike : alike;
  }
}

/** No byte is local until arrive() or fail() is called: these complete waiting and later reads. */
export class WaitingDisk extends MemoryDisk {
  loads = 0;
  #arrived = false;
  #failure: ObdError | undefined;
  readonly #waiting: (() => void)[] = [];
  /** Reads below this offset never wait. */
  readonly #localBytes: number;

  constructor(bytes: Uint8Array, localBytes = 0) {
    super(bytes, 'waiting');
    this.#localBytes = localBytes;
  }

  override tryRead(target: Uint8Array, offset: number): boolean {
    if (!this.#arrived && offset + target.length > this.#localBytes) return false;
    return super.tryRead(target, offset);
  }

  override async load(): Promise<void> {
    this.loads++;
    if (!this.#arrived && this.#failure === undefined) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  arrive(): void {
    this.#arrived = true;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  fail(): void {
    this.#failure = new ObdError(ErrorCodes.Unavailable, 'Cannot fetch: the registry is away');
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
