/** `obdctl cache`: what obd-blockd's cache holds, and making room in it. */
import type { CommandModule } from 'yargs';
import type { BlockdClient } from '../../blockd/blockd-client.js';
import { byteText } from '../../byte-text.js';
import { ErrorCodes, hasCode } from '../../errors.js';
import { blockdOption } from './blockd-option.js';
import { jsonOption, printJson } from './json-option.js';
import { textTable } from './text-table.js';

interface Arguments {
  readonly blockd: string;
  readonly json: boolean;
}

const options = { blockd: blockdOption, json: jsonOption } as const;

async function withClient(
  blockd: string,
  work: (client: BlockdClient) => Promise<void>,
): Promise<void> {
  const { BlockdClient } = await import('../../blockd/blockd-client.js');
  const client = new BlockdClient(blockd);
  try {
    await work(client);
  } finally {
    client.close();
  }
}

const list: CommandModule<object, Arguments> = {
  command: 'ls',
  describe: 'List the blobs of the cache, those in use first, then the latest used',
  builder: (yargs) => yargs.options(options).example('$0 cache ls', ''),
  handler: async ({ blockd, json }) =>
    await withClient(blockd, async (client) => {
      const { blobs } = await client.cache();
      if (json) return printJson(blobs);
      const columns = [
        { title: 'DIGEST' },
        { title: 'REGISTRY' },
        { title: 'CACHED', right: true },
        { title: 'LAST USED' },
      ];
      const rows = blobs.map(({ digest, registry, cachedBytes, inUse, usedAtMs }) => {
        const used = inUse ? 'in use' : new Date(usedAtMs).toISOString();
        return [digest, registry, byteText(cachedBytes), used];
      });
      process.stdout.write(textTable(columns, rows));
    }),
};

const usage: CommandModule<object, Arguments> = {
  command: 'du',
  describe: 'Show how much of the disk the cache takes, and how much room it has',
  builder: (yargs) => yargs.options(options).example('$0 cache du --json', 'for programs'),
  handler: async ({ blockd, json }) =>
    await withClient(blockd, async (client) => {
      const { blobs, capacityBytes, diskFreeBytes } = await client.cache();
      const sum = (inUse: boolean) =>
        blobs.reduce((bytes, blob) => bytes + (blob.inUse === inUse ? blob.cachedBytes : 0), 0);
      const found = {
        blobs: blobs.length,
        inUseBytes: sum(true),
        unusedBytes: sum(false),
        capacityBytes,
        diskFreeBytes,
      };
      if (json) return printJson(found);
      const rows = [
        ['blobs', String(found.blobs)],
        ['in use', byteText(found.inUseBytes)],
        ['unused', byteText(found.unusedBytes)],
        ['cache_size', byteText(capacityBytes)],
        ['disk free above cache_reserve', byteText(diskFreeBytes)],
      ];
      process.stdout.write(rows.map(([name, value]) => `${name!.padEnd(31)}${value}\n`).join(''));
    }),
};

const prune: CommandModule<object, Arguments> = {
  command: 'prune',
  describe: 'Remove the blobs that no device uses',
  builder: (yargs) => yargs.options(options).example('$0 cache prune', ''),
  handler: async ({ blockd, json }) =>
    await withClient(blockd, async (client) => {
      const pruned = await client.pruneCache();
      if (json) return printJson(pruned);
      const what = pruned.blobs === 1 ? 'blob' : 'blobs';
      process.stdout.write(`Removed ${pruned.blobs} ${what}, ${byteText(pruned.freedBytes)}\n`);
    }),
};

const verify: CommandModule<object, Arguments> = {
  command: 'verify',
  describe: 'Check blobs that are here as a whole against their digests, and drop what fails',
  builder: (yargs) =>
    yargs
      .options(options)
      .example('$0 cache verify', '')
      .epilogue(
        'Reads check the blocks of every blob, too. The exit status is 1 if a blob failed: it is fetched again when it is read.',
      ),
  handler: async ({ blockd, json }) =>
    await withClient(blockd, async (client) => {
      const sum = { blobs: 0, checkedBytes: 0, uncheckedBytes: 0, failed: [] as string[] };
      const { blobs } = await client.cache();
      // The least recently used first: a check counts as a use, and eviction keeps its order so.
      for (const { registry, digest, cachedBytes } of blobs.toReversed()) {
        const found = await client.verifyCache(registry, digest).catch((error: unknown) => {
          // All of it or a part was evicted since it was listed: the next ones are checked all the same.
          const isEvicted =
            hasCode(error, ErrorCodes.NotFound) || hasCode(error, ErrorCodes.FailedPrecondition);
          if (!isEvicted) throw error;
          return { checkedBytes: 0, uncheckedBytes: cachedBytes, droppedBytes: 0 };
        });
        sum.blobs++;
        sum.checkedBytes += found.checkedBytes;
        sum.uncheckedBytes += found.uncheckedBytes;
        if (found.droppedBytes > 0) sum.failed.push(digest);
      }
      if (json) printJson(sum);
      else {
        const failed = sum.failed.map((digest) => `${digest}: failed, dropped\n`).join('');
        const parts = `${byteText(sum.uncheckedBytes)} are parts of blobs, which reads check`;
        process.stdout.write(
          `${failed}Checked ${byteText(sum.checkedBytes)} in ${sum.blobs} blobs, ${sum.failed.length} failed; ${parts}\n`,
        );
      }
      if (sum.failed.length > 0) process.exitCode = 1;
    }),
};

export const cache: CommandModule = {
  command: 'cache',
  describe: "List, measure, prune or verify obd-blockd's cache",
  builder: (yargs) =>
    yargs
      .command(list)
      .command(usage)
      .command(prune)
      .command(verify)
      .demandCommand(1, 'Name a command'),
  handler: () => {},
};
