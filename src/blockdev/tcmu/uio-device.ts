/**
 * A TCMU device's /dev/uioN, by native/tcmu: its ring as memory, its data area by copies.
 */
import { loadNativeAddon } from '../../io/native-addon.js';

/**
 * Copies bytes[from, from + length) to the memory that the `count` iovecs at iovecs[at] name, or back. False, with
 * nothing copied, if they name less than that, or something outside the data area.
 */
type DataCopy = (
  iovecs: Uint8Array,
  at: number,
  count: number,
  bytes: Uint8Array,
  from: number,
  length: number,
) => boolean;

export interface UioDevice {
  /** The mailbox and the command ring. close() empties it. */
  readonly ring: ArrayBuffer;
  scatter: DataCopy;
  gather: DataCopy;
  /** Tells the kernel that there are answers. */
  kick(): void;
  /** Idempotent. */
  close(): void;
}

interface Addon {
  Uio: new (path: string, sizeBytes: number, onReady: (failure: number) => void) => UioDevice;
}

const addon = loadNativeAddon('tcmu', 'tcmu') as Addon;

/**
 * @param onReady - Called with 0 when there may be commands, and with an errno when the device was taken away; it must
 *   not throw.
 * @throws system errors: `EBUSY` while another process, or this, has it.
 */
export function openUioDevice(
  path: string,
  sizeBytes: number,
  onReady: (failure: number) => void,
): UioDevice {
  return new addon.Uio(path, sizeBytes, onReady);
}
