/** `obdctl devices`: lists obd-blockd's devices, and how much it fetched for each. */
import type { CommandModule } from 'yargs';
import type { Device, Overview, Prefetch } from '../../blockd/blockd-client.js';
import { byteText, percentText } from '../../byte-text.js';
import { blockdOption } from './blockd-option.js';
import { jsonOption, printJson } from './json-option.js';
import { textTable } from './text-table.js';

interface Arguments {
  readonly blockd: string;
  readonly json: boolean;
}

export const devices: CommandModule<object, Arguments> = {
  command: 'devices',
  describe: 'List the block devices of lazily loaded images, and the transport of new ones',
  builder: (yargs) =>
    yargs
      .options({ blockd: blockdOption, json: jsonOption })
      .epilogue(
        'A recovering device is left from an earlier run of the daemon; its reads wait. PROVED is how many of the layers in a registry have hash trees, which prove every block that is read; blocks of the others have checksums. REMOTE is the size of the blobs in the registry, CACHED how much of them is on this disk. FETCHED, REQUESTS ' +
          'and ERRORS (reads answered with an error) count from when the device was attached. WAITING is how many reads wait for the registry, and how long the first of them has. FILL is the state of fetching the rest of the image in the background. HOT is how many pages of 4 KiB came ahead of the start, and the share of them that was read.',
      ),
  handler: async ({ blockd, json }) => {
    const { BlockdClient } = await import('../../blockd/blockd-client.js');
    const client = new BlockdClient(blockd);
    try {
      const { devices, transports, prefetches } = await client.overview();
      if (json) printJson(devices);
      else
        process.stdout.write(
          `${tableOf(devices)}${problemsOf(devices)}${prefetches.map(prefetchText).join('')}\n${choiceOf(transports)}`,
        );
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
    { title: 'STATE' },
    { title: 'SIZE', right: true },
    { title: 'LAYERS', right: true },
    { title: 'PROVED', right: true },
    { title: 'REMOTE', right: true },
    { title: 'CACHED', right: true },
    { title: 'FETCHED', right: true },
    { title: 'REQUESTS', right: true },
    { title: 'ERRORS', right: true },
    { title: 'WAITING', right: true },
    { title: 'FILL' },
    { title: 'HOT', right: true },
  ];
  const rows = found.map((device) => [
    device.id,
    device.path,
    device.transport,
    device.state,
    byteText(device.sizeBytes),
    String(device.layers),
    provedText(device),
    byteText(device.remoteBytes),
    percentText(device.cachedBytes, device.remoteBytes),
    byteText(device.fetchedBytes),
    String(device.fetchRequests),
    String(device.readErrors),
    waitingText(device),
    device.fillState || '-',
    hotText(device),
  ]);
  return textTable(columns, rows);
}

/** How much of the hot blob was read; the rest was fetched in vain. */
function hotText({ hotPages, hotPagesRead }: Device): string {
  return hotPages === 0 ? '-' : `${percentText(hotPagesRead, hotPages)} of ${hotPages}`;
}

/** How many of the remote layers have hash trees. */
function provedText({ remoteLayers, provedLayers }: Device): string {
  return remoteLayers === 0 ? '-' : `${provedLayers} of ${remoteLayers}`;
}

/** How many reads wait, and how long the first one has waited. */
function waitingText({ waitingReads, waitingMs }: Device): string {
  return waitingReads === 0 ? '0' : `${waitingReads} (${Math.round(waitingMs / 1000)} s)`;
}

/** A line for each device that is not served, or whose reads wait, with the reason. */
function problemsOf(found: readonly Device[]): string {
  return found
    .map(({ id, problem, fillProblem, waitingReads, waitingReason }) => {
      if (problem !== '') return `${id}: ${problem}\n`;
      if (fillProblem !== '') return `${id}: the rest is not fetched: ${fillProblem}\n`;
      if (waitingReads === 0) return '';
      return `${id}: reads wait: ${waitingReason || 'the registry has not answered yet'}\n`;
    })
    .join('');
}

function prefetchText({ name, state, problem, cachedBytes, totalBytes }: Prefetch): string {
  const why = problem === '' ? '' : `: ${problem}`;
  return `prefetch of ${name}: ${percentText(cachedBytes, totalBytes)} of ${byteText(totalBytes)}, ${state}${why}\n`;
}

/** Names the transport of new devices, and why each better one is not used. */
function choiceOf(transports: Overview['transports']): string {
  const at = transports.findIndex(({ chosen }) => chosen);
  const chosen = transports[at];
  const better = transports.slice(0, chosen === undefined ? undefined : at);
  const lines = better.map(({ name, missing }) =>
    missing === ''
      ? `  ${name} could be used: the configuration says otherwise`
      : `  not ${name}: ${missing}`,
  );
  if (chosen === undefined) lines.unshift('New devices cannot be attached:');
  else if (chosen.missing === '') lines.unshift(`New devices use ${chosen.name}.`);
  else lines.unshift(`New devices would use ${chosen.name}, but ${chosen.missing}`);
  return `${lines.join('\n')}\n`;
}
