/** `obdctl predict`: opens the image in this process, predicts, and prints the files in the order of their use. */
import { byteText } from '../../byte-text.js';
import { ErrorCodes, ObdError } from '../../errors.js';
import { readableImage } from '../../image/readable-image.js';
import { LAYER_FORMATS } from '../../layers/layer-formats.js';
import { parsePlatform } from '../../oci/platform.js';
import { Ext4Tree } from '../../predict/ext4-tree.js';
import { ImageFiles } from '../../predict/image-files.js';
import { type Prediction, predictStart } from '../../predict/predict-start.js';
import { bytesOf } from '../../predict/prediction.js';
import { findProgram, searchedPaths } from '../../predict/program.js';
import { type StartCommand, startCommand } from '../../predict/start-command.js';
import { DecodedBlocks } from '../../zfile/decoded-blocks.js';
import { interruption } from '../interruption.js';
import { printJson } from './json-option.js';
import { startOf } from './start-options.js';
import { textTable } from './text-table.js';

/** For decoded blocks: the rules return to directories and inode tables. */
const DECODED_BYTES = 64 << 20;
/** PATH has fewer directories in most images. */
const PATHS_SHOWN_MAX = 8;
const TIERS = [1, 2, 3] as const;

export interface PredictOptions {
  /** A JSON array of strings, or one word. */
  readonly entrypoint: string | undefined;
  readonly args: string | undefined;
  readonly env: readonly string[];
  readonly cwd: string | undefined;
  readonly platform: string | undefined;
  readonly plainHttp: boolean;
  /** containerd's hosts directory. */
  readonly hostsDirectory: string;
  readonly json: boolean;
}

/** @throws {ObdError} `NotFound` for a command that is not in the image; `InvalidArgument`; as readableImage(). */
export async function runPredict(image: string, options: PredictOptions): Promise<void> {
  const { platform, plainHttp, hostsDirectory, json } = options;
  const start = startOf(options);
  const readable = await readableImage(image, {
    formats: LAYER_FORMATS,
    decoded: new DecodedBlocks(DECODED_BYTES),
    platform: platform === undefined ? undefined : parsePlatform(platform),
    plainHttp,
    hostsDirectory,
    signal: interruption(),
  });
  try {
    const command = startCommand(readable.config, start);
    const tree = await Ext4Tree.open(readable.disk);
    await checkProgram(tree, command, image);
    const prediction = await predictStart(tree, command);
    if (json) printJson(prediction);
    else process.stdout.write(textOf(prediction));
  } finally {
    await readable.close();
  }
}

/** Without its program an image reads nothing, and does not start. */
async function checkProgram(tree: Ext4Tree, command: StartCommand, image: string): Promise<void> {
  const [name = ''] = command.argv;
  if ((await findProgram(name, command, new ImageFiles(tree))) !== undefined) return;
  const paths = searchedPaths(name, command);
  const shown = paths.slice(0, PATHS_SHOWN_MAX).join(', ');
  const more = paths.length > PATHS_SHOWN_MAX ? ', ...' : '';
  const found = `the image has no program "${name}"; looked for ${shown}${more}`;
  const remedy = 'name another one with --entrypoint, or set PATH with --env';
  const message = printable(`Cannot predict what ${image} reads: ${found}; ${remedy}`);
  throw new ObdError(ErrorCodes.NotFound, message);
}

function textOf({ files, isCut }: Prediction): string {
  const columns = [
    { title: 'PATH' },
    { title: 'BYTES', right: true },
    { title: 'TIER', right: true },
    { title: 'RULE' },
    { title: 'REASON' },
  ];
  const rows = files.map(({ path, ranges, tier, rule, reason }) =>
    [path, byteText(bytesOf(ranges)), String(tier), rule, reason].map(printable),
  );
  const sums = TIERS.map((tier) => {
    const own = files.filter((file) => file.tier === tier).flatMap(({ ranges }) => ranges);
    return `tier ${tier}: ${byteText(bytesOf(own))}`;
  });
  const all = byteText(bytesOf(files.flatMap(({ ranges }) => ranges)));
  const distinct = new Set(files.map(({ path }) => path)).size;
  const cut = isCut ? '; a bound on the work was reached, so files may be missing' : '';
  return `${textTable(columns, rows)}${distinct} files, ${all} (${sums.join(', ')})${cut}\n`;
}

/** Names in an image may have control characters, which a terminal would obey. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e\u00a0-\uffff]/g, '?');
}
