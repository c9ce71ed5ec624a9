/**
 * A separate process that serves a TCMU disk badly, until a test kills it. Arguments: DIRECTORY, ID and an action:
 *
 *     silent           attaches a disk that serves only its first bytes, so that the kernel's search for partitions waits
 *     unanswered       makes the device, prints, and answers nothing: the kernel's scan waits
 */
import { mkdir } from 'node:fs/promises';
import { daemonKey } from '../../src/blockdev/device-ids.js';
import {
  enableCoreDevice,
  findUio,
  makeCoreDevice,
  makeLoopTarget,
  targetNames,
} from '../../src/blockdev/tcmu/target-objects.js';
import { TcmuTransport } from '../../src/blockdev/tcmu/tcmu-transport.js';
import { openUioDevice } from '../../src/blockdev/tcmu/uio-device.js';
import { absenceSeconds } from '../../src/blockdev/transport.js';
import { ObdError } from '../../src/errors.js';
import { pagesOf, WaitingDisk } from './virtual-disks.js';

const [directory = '', id = '', action = ''] = process.argv.slice(2);

/** @returns The device node, or that the scan is about to begin. */
async function serve(): Promise<string> {
  if (action === 'silent') {
    const transport = new TcmuTransport(directory);
    return (await transport.attach(id, new WaitingDisk(pagesOf(4 << 20), 16384))).path;
  }
  await mkdir(directory, { recursive: true });
  const names = targetNames(await daemonKey(directory), id);
  await makeCoreDevice(names);
  await enableCoreDevice(names, 1 << 20, absenceSeconds({}));
  const uio = (await findUio(names))!;
  openUioDevice(uio.path, uio.sizeBytes, () => {});
  makeLoopTarget(names).catch(() => {});
  return 'about to';
}

try {
  process.stdout.write(`${await serve()}\n`);
} catch (error) {
  process.stdout.write(`${error instanceof ObdError ? error.code : String(error)}\n`);
  process.exit(1);
}
