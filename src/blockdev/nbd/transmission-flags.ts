/** The requests that a disk allows, as the transmission flags that a handshake or the kernel's NBD client is told. */
import { isWritable, type VirtualDisk } from '../virtual-disk.js';
import { TransmissionFlags } from './protocol.js';

/**
 * Several connections see one disk: a flush on any covers the writes answered on all, as all of them end in the same
 * object. A flush of a disk that cannot be written is granted, because clients send one without asking.
 */
export function transmissionFlags(disk: VirtualDisk): number {
  const { HasFlags, ReadOnly, SendFlush, SendFua, SendTrim, SendWriteZeroes, CanMultiConn } =
    TransmissionFlags;
  const writes = isWritable(disk) ? SendFua | SendTrim | SendWriteZeroes : ReadOnly;
  return HasFlags | SendFlush | CanMultiConn | writes;
}
