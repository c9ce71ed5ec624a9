/**
 * A separate process that serves a file by a transport until a test kills it: run with TRANSPORT, FOLDER, FILE, and
 * "attach" or "resume". It prints "begins", then the device's node; on SIGUSR1 it prints "ends" and detaches. If the
 * transport can write, the device is writable.
 */
import { readFileSync } from 'node:fs';
import type { TransportName } from '../../src/blockdev/transport.js';
import { FileDisk } from './file-disk.js';
import { serveBy } from './kernel-transports.js';
import { MemoryDisk } from './virtual-disks.js';

const [name = '', folder = '', file = '', action = ''] = process.argv.slice(2);
const disk = name === 'fuse' ? new MemoryDisk(readFileSync(file)) : new FileDisk(file);
const transport = await serveBy(name as TransportName, folder);
process.stdout.write('begins\n');
const device = await (action === 'resume'
  ? transport.resume('victim', disk)
  : transport.attach('victim', disk));
process.once('SIGUSR1', async () => {
  process.stdout.write('ends\n');
  await device.detach();
  process.exit();
});
process.stdout.write(`${device.path}\n`);
// Not every transport keeps a process alive.
setInterval(() => {}, 1 << 30);
