/**
 * A separate process that serves a file as an NBD device until a test kills it. Arguments: DIRECTORY, ID, FILE and "attach"
 * or "resume". It prints the device node when it exists, or the code of the error.
 */
import { NbdTransport } from '../../src/blockdev/nbd-kernel/nbd-transport.js';
import { ObdError } from '../../src/errors.js';
import { FileDisk } from './file-disk.js';

const [directory = '', id = '', file = '', action = ''] = process.argv.slice(2);
const transport = new NbdTransport(directory);
const disk = new FileDisk(file);
try {
  const device =
    action === 'resume' ? await transport.resume(id, disk) : await transport.attach(id, disk);
  process.stdout.write(`${device.path}\n`);
} catch (error) {
  process.stdout.write(`${error instanceof ObdError ? error.code : String(error)}\n`);
  process.exit(1);
}
