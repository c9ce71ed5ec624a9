/** All transports of one daemon. Making them costs nothing; each thread that serves devices has its own. */
import { join } from 'node:path';
import { FuseTransport } from './fuse/fuse-transport.js';
import { NbdTransport } from './nbd-kernel/nbd-transport.js';
import { TcmuTransport } from './tcmu/tcmu-transport.js';
import type { Transport, TransportName, TransportSettings } from './transport.js';
import { UblkTransport } from './ublk/ublk-transport.js';

export type Transports = Readonly<Record<TransportName, Transport>>;

/**
 * @param nbdSocketPath - Where each disk is exported under its device's id before its device is attached or resumed.
 * @param directory - For this daemon's devices alone; each transport keeps its files in a folder of it.
 * @param settings - `onReadError` is not called for fuse, whose reads go through the NBD export, which reports its own.
 */
export function makeTransports(
  nbdSocketPath: string,
  directory: string,
  settings: TransportSettings = {},
): Transports {
  const of = (name: TransportName) => join(directory, name);
  return {
    ublk: new UblkTransport(of('ublk'), settings),
    tcmu: new TcmuTransport(of('tcmu'), settings),
    nbd: new NbdTransport(of('nbd'), settings),
    fuse: new FuseTransport(nbdSocketPath, of('fuse'), settings),
  };
}
