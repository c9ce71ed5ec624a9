/**
 * A separate process that serves a file as a TCMU disk until a test kills it. Arguments: DIRECTORY, ID, FILE and an action:
 *
 *     attach, resume   prints the device node when it exists, or the code of the error
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
import { FileDisk } from './file-disk.js';
import { pagesOf, WaitingDisk } from './virtual-disks.js';

const [directory = '', id = '', file = '', action = ''] = process.argv.slice(2);

async function serve(): Promise<string> {
  const transport = new TcmuTransport(directory);
  switch (action) {
    case 'silent':
      return (await transport.attach(id, new WaitingDisk(pagesOf(4 << 20), 16384))).path;
    case 'unanswered': {
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
    case 'resume':
      return (await transport.resume(id, new FileDisk(file))).path;
    default:
      return (await transport.attach(id, new FileDisk(file))).path;
  }
}

try {
  process.stdout.write(`${await serve()}\n`);
} catch (error) {
  process.stdout.write(`${error instanceof ObdError ? error.code : String(error)}\n`);
  process.exit(1);
}
