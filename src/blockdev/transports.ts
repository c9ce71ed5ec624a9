/** All transports of one daemon. Making them costs nothing; each thread that serves devices has its own. */
import { join } from 'node:path';
import { FuseTransport } from './fuse/fuse-transport.js';
import { NbdTransport } from './nbd/nbd-transport.js';
import { TcmuTransport } from './tcmu/tcmu-transport.js';
import type { DeviceFailure, Transport, TransportName } from './transport.js';
import { UblkTransport } from './ublk/ublk-transport.js';

export type Transports = Readonly<Record<TransportName, Transport>>;

/**
 * @param nbdSocketPath - Where each disk is exported under its device's id before its device is attached or resumed.
 * @param directory - Of this daemon's devices alone; each transport keeps what it needs in a folder of it.
 * @param onReadError - Called once for each such read; those of fuse go through the NBD export, which has its own.
 */
export function makeTransports(
  nbdSocketPath: string,
  directory: string,
  onReadError?: (failure: DeviceFailure) => void,
): Transports {
  const of = (name: TransportName) => join(directory, name);
  return {
    ublk: new UblkTransport(of('ublk'), onReadError),
    tcmu: new TcmuTransport(of('tcmu'), onReadError),
    nbd: new NbdTransport(of('nbd'), onReadError),
    fuse: new FuseTransport(nbdSocketPath, of('fuse')),
  };
}
