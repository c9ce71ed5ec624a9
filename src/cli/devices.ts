/** `obdctl devices`: what obd-blockd has attached, and what that made it fetch. */
import type { CommandModule } from 'yargs';
import type { Device } from '../blockd/blockd-client.js';
import { blockdOption } from './blockd-option.js';
import { byteText, percentText } from './byte-text.js';
import { jsonOption, printJson } from './json-option.js';
import { textTable } from './text-table.js';

interface Arguments {
  readonly blockd: string;
  readonly json: boolean;
}

export const devices: CommandModule<object, Arguments> = {
  command: 'devices',
  describe: 'List the block devices of lazily loaded images',
  builder: (yargs) =>
    yargs
      .options({ blockd: blockdOption, json: jsonOption })
      .epilogue(
        'REMOTE is the size of the blobs in the registry, CACHED how much of them is on this disk. FETCHED, REQUESTS ' +
          'and ERRORS (reads answered with an error) count from when the device was attached.',
      ),
  handler: async ({ blockd, json }) => {
    const { BlockdClient } = await import('../blockd/blockd-client.js');
    const client = new BlockdClient(blockd);
    try {
      const found = await client.list();
      if (json) printJson(found);
      else process.stdout.write(tableOf(found));
    } finally {
      client.close();
    }
  },
};

function tableOf(found: readonly Device[]): string {
  const columns = [
    { title: 'ID' },
    { title: 'DEVICE' },
    { title: 'TRANSPORT' },
    { title: 'SIZE', right: true },
    { title: 'LAYERS', right: true },
    { title: 'REMOTE', right: true },
    { title: 'CACHED', right: true },
    { title: 'FETCHED', right: true },
    { title: 'REQUESTS', right: true },
    { title: 'ERRORS', right: true },
  ];
  const rows = found.map((device) => [
    device.id,
    device.path,
    device.transport,
    byteText(device.sizeBytes),
    String(device.layers),
    byteText(device.remoteBytes),
    percentText(device.cachedBytes, device.remoteBytes),
    byteText(device.fetchedBytes),
    String(device.fetchRequests),
    String(device.readErrors),
  ]);
  return textTable(columns, rows);
}
