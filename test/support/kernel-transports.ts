/** The transports of this host by name, for tests that run the same with each, and what there is of each in the kernel. */
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FuseTransport } from '../../src/blockdev/fuse/fuse-transport.js';
import { NbdServer } from '../../src/blockdev/nbd/nbd-server.js';
import { NbdTransport } from '../../src/blockdev/nbd-kernel/nbd-transport.js';
import { TcmuTransport } from '../../src/blockdev/tcmu/tcmu-transport.js';
import type { Transport, TransportName } from '../../src/blockdev/transport.js';
import { UblkTransport } from '../../src/blockdev/ublk/ublk-transport.js';
import { ExportingTransport } from './exporting-transport.js';

/** A transport that serves, with its files in `folder`. */
export async function serveBy(name: TransportName, folder: string): Promise<Transport> {
  if (name !== 'fuse') return watchBy(name, folder);
  await mkdir(folder, { recursive: true });
  const socketPath = join(folder, 'nbd.sock');
  const server = await NbdServer.listen(socketPath);
  return new ExportingTransport(server, socketPath, directoryIn(folder));
}

/** A transport that sees what another one in the same folder left, and clears it away. */
export function watchBy(name: TransportName, folder: string): Transport {
  const directory = directoryIn(folder);
  switch (name) {
    case 'ublk':
      return new UblkTransport(directory);
    case 'tcmu':
      return new TcmuTransport(directory);
    case 'nbd':
      return new NbdTransport(directory);
    case 'fuse':
      return new FuseTransport(join(folder, 'nbd.sock'), directory);
  }
}

function directoryIn(folder: string): string {
  return join(folder, 'devices');
}

/** Why a transport cannot run here. */
export async function whyNot(name: TransportName): Promise<string | undefined> {
  return await watchBy(name, '/nowhere').unavailableReason();
}

/**
 * Lists all objects of a transport in this kernel, including those of other processes: they must be the same before and
 * after. For fuse only those in `folder`, because other programs use loop devices and mounts too.
 */
export async function kernelObjects(name: TransportName, folder: string): Promise<string[]> {
  switch (name) {
    case 'ublk':
      return [...(await entries('/sys/class/ublk-char', 'ublkc')), ...(await disks('ublkb'))];
    case 'tcmu':
      return [
        ...(await entries('/sys/kernel/config/target/core', 'user_')),
        ...(await entries('/sys/kernel/config/target/loopback', 'naa.')),
        ...(await entries('/sys/class/uio', 'uio')),
        ...(await disks('sd')),
      ];
    case 'nbd': {
      const names = await disks('nbd');
      const pids = names.map((disk) => readFile(`/sys/block/${disk}/pid`, 'utf8').catch(() => '-'));
      return (await Promise.all(pids)).map((pid, i) => `${names[i]} ${pid}`);
    }
    case 'fuse': {
      const loops = (await disks('loop')).map((disk) => `/sys/block/${disk}/loop/backing_file`);
      const files = loops.map((path) => readFile(path, 'utf8').catch(() => ''));
      const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
      return [...(await Promise.all(files)), ...mounts].filter((line) => line.includes(folder));
    }
  }
}

async function entries(directory: string, prefix: string): Promise<string[]> {
  const names = await readdir(directory).catch(() => []);
  return names.filter((name) => name.startsWith(prefix)).map((name) => `${directory}/${name}`);
}

async function disks(prefix: string): Promise<string[]> {
  return (await entries('/sys/block', prefix)).map((path) => path.slice('/sys/block/'.length));
}
