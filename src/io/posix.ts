/** System calls that Node does not offer, through native/posix. */
import type { Socket } from 'node:net';
import { ErrorCodes, ObdError } from '../errors.js';
import { loadNativeAddon } from './native-addon.js';

interface Addon {
  duplicate(fd: number): number;
  lock(fd: number): boolean;
  punchHole(fd: number, offset: number, length: number): Promise<void>;
  allocate(fd: number, offset: number, length: number): Promise<void>;
  returnFreedBuffers(bytes: number): void;
}

const addon = loadNativeAddon('posix', 'posix') as Addon;

/**
 * Duplicates the descriptor of a connected socket. The duplicate stays open when `socket` is destroyed, because Node
 * closes destroyed sockets without a shutdown. Any thread can make a socket of it.
 *
 * @throws {ObdError} `Io` for a socket without a descriptor; system errors (`EMFILE`).
 */
export function duplicateOf(socket: Socket): number {
  // No public interface of Node has the descriptor. Node's own cluster and child_process read it here since 0.x. If
  // Node removes it, this throws and mixes up no connections.
  const { _handle: handle } = socket as unknown as { _handle?: { readonly fd?: unknown } | null };
  const fd = handle?.fd;
  if (typeof fd !== 'number' || fd < 0) {
    throw new ObdError(
      ErrorCodes.Io,
      'Cannot hand a connection over: its socket has no descriptor',
    );
  }
  return addon.duplicate(fd);
}

/**
 * Has free() return buffers of `bytes` and more to the kernel at once, in all threads of this process. glibc otherwise raises
 * that size to the largest buffer it has freed. Other C libraries have no such setting.
 */
export function returnFreedBuffers(bytes: number): void {
  addon.returnFreedBuffers(bytes);
}

/**
 * Takes the exclusive flock() of an open file, without waiting. The kernel releases it when the file is closed, also by
 * the end of the process.
 *
 * @returns False if another open file has the lock.
 * @throws system errors.
 */
export function lockFile(fd: number): boolean {
  return addon.lock(fd);
}

/**
 * Gives [offset, offset + length) of a file back to its file system; the range reads as zeroes. Works on a full disk.
 * @throws system errors: `EOPNOTSUPP` where the file system has no holes.
 */
export async function punchHole(fd: number, offset: number, length: number): Promise<void> {
  await addon.punchHole(fd, offset, length);
}

/**
 * Takes disk space for a range of a file, so that writing the range cannot fail for want of room.
 * @throws system errors: `ENOSPC`, and `EOPNOTSUPP` where the file system cannot.
 */
export async function allocateRange(fd: number, offset: number, length: number): Promise<void> {
  await addon.allocate(fd, offset, length);
}
