/**
 * Serves one image, from layers that are local files, through one transport, as a separate process: the read path
 * without the daemon around it. `node io-server.js TRANSPORT DIRECTORY LAYER...`, the bottom first. Its first line is
 * the address of the disk, or what this host lacks. It detaches and ends at SIGTERM.
 *
 * "socket" is the NBD socket alone; the others are the kernel's.
 */
import { join } from 'node:path';
import { NbdServer } from '../src/blockdev/nbd/nbd-server.js';
import type { Transport } from '../src/blockdev/transport.js';
import { messageOf } from '../src/errors.js';
import { LocalFile } from '../src/io/local-file.js';
import { LAYER_FORMATS } from '../src/layers/layer-formats.js';
import { openLayer } from '../src/layers/open-layer.js';
import { LayerStack } from '../src/lsmt/layer-stack.js';
import { DecodedBlocks } from '../src/zfile/decoded-blocks.js';
import { exportDisk } from '../test/support/exported-disk.js';

const DECODED_BYTES = 64 << 20;
const ID = 'disk';

const [name = 'socket', directory = '', ...paths] = process.argv.slice(2);
const socketPath = join(directory, 'nbd.sock');

/** Loaded one at a time: the other transports' add-ons are not needed. */
async function transportOf(): Promise<Transport | undefined> {
  switch (name) {
    case 'nbd':
      return new (await import('../src/blockdev/nbd-kernel/nbd-transport.js')).NbdTransport(
        directory,
      );
    case 'tcmu':
      return new (await import('../src/blockdev/tcmu/tcmu-transport.js')).TcmuTransport(directory);
    case 'ublk':
      return new (await import('../src/blockdev/ublk/ublk-transport.js')).UblkTransport(directory);
    case 'fuse': {
      const { FuseTransport } = await import('../src/blockdev/fuse/fuse-transport.js');
      return new FuseTransport(socketPath, directory);
    }
    default:
      return undefined;
  }
}

/** One line, which the benchmark waits for. */
function say(answer: Record<string, string>): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

async function serve(): Promise<void> {
  const transport = await transportOf();
  const missing = await transport?.unavailableReason();
  if (missing !== undefined) {
    say({ missing });
    return;
  }
  const decoded = new DecodedBlocks(DECODED_BYTES);
  const layers = await Promise.all(
    paths.map((path) => openLayer(LocalFile.open(path), { formats: LAYER_FORMATS, decoded })),
  );
  const disk = new LayerStack(layers);
  const server = await NbdServer.listen(socketPath);
  exportDisk(server, ID, disk);
  const device = await transport?.attach(ID, disk);
  process.once('SIGTERM', async () => {
    // In order, so that nothing is left, and a profile is written.
    await device?.detach();
    await server.close();
    disk.close();
  });
  if (device === undefined) say({ uri: `nbd+unix:///${ID}?socket=${socketPath}` });
  else say({ device: device.path });
}

await serve().catch((error: unknown) => {
  say({ failed: messageOf(error) });
  process.exit(1);
});
