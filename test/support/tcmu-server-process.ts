/**
 * A separate process that serves a TCMU disk badly, until a test kills it. Arguments: DIRECTORY, ID and an action:
 *
 *     silent           attaches a disk that serves only its first bytes, so that the kernel's search for partitions waits
 *     unanswered       makes the device, prints, and answers nothing: the kernel's scan waits
 */
import { createHash } from 'node:crypto';
import { mkdir, realpath } from 'node:fs/promises';
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
  const hash = createHash('sha256').update(await realpath(directory));
  const names = targetNames(hash.digest('hex').slice(0, 16), id);
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
