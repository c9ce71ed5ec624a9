/**
 * The load order of a converted image, from its layers in the work directory: what its entry point is predicted to read, or
 * the files of a list. Nothing is run, and nothing is read from a registry. The same image gives the same order.
 */
import { ErrorCodes, hasCode } from '../errors.js';
import type { LayerFormat } from '../layers/layer-format.js';
import { openLayer } from '../layers/open-layer.js';
import type { LoadOrder } from '../load-order/load-order.js';
import { orderOf } from '../load-order/recorded-order.js';
import type { Layer } from '../lsmt/layer.js';
import { LayerStack } from '../lsmt/layer-stack.js';
import { type DiskReads, diskReads } from '../predict/disk-reads.js';
import { Ext4Tree } from '../predict/ext4-tree.js';
import { predictStart } from '../predict/predict-start.js';
import { type StartCommand, startCommand } from '../predict/start-command.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import type { ConvertedLayer } from './layer-converter.js';
import { StoredFile } from './stored-file.js';

/** For decoded blocks: the rules return to directories and inode tables. */
const DECODED_BYTES = 64 << 20;
const LEFT_SHOWN_MAX = 3;

export interface OrderRequest {
  /** Bottom first. */
  readonly layers: readonly ConvertedLayer[];
  /** A parsed OCI image config. */
  readonly config: unknown;
  /** Absolute paths, in the order of their use; undefined for a prediction. */
  readonly priorityList: readonly string[] | undefined;
}

/**
 * @param formats - The known kinds of layer.
 * @returns Undefined for an image without a command, or if no file was found.
 * @throws {ObdError} errors of reading the layers.
 */
export async function startOrder(
  { layers, config, priorityList }: OrderRequest,
  formats: readonly LayerFormat[],
  warn: (message: string) => void,
): Promise<LoadOrder | undefined> {
  const command = priorityList === undefined ? commandOf(config) : undefined;
  if (priorityList === undefined && command === undefined) return undefined;
  const opened = await openLayers(layers, formats);
  const files = opened.map(({ sources }) => sources[0]!);
  try {
    const disk = new LayerStack(opened);
    const tree = await Ext4Tree.open(disk);
    const { reads } =
      command === undefined
        ? await listedReads(tree, priorityList!, warn)
        : await diskReads(tree, (await predictStart(tree, command)).files);
    const image = {
      disk,
      files,
      layers: layers.map(({ digest, hashTree }) => ({ digest, root: hashTree.root })),
    };
    const kind = command === undefined ? 'list' : 'predicted';
    const timed = reads.map((read) => ({ ...read, ms: 0 }));
    const order = orderOf(timed, image, { kind, readAheadBytes: 0 });
    if (order.runs.length > 0) return order;
    if (kind === 'list') {
      warn(
        'the image gets no load order: no file of the priority list has bytes, and a list takes the place of a prediction',
      );
    }
    return undefined;
  } finally {
    for (const layer of opened) layer.close();
  }
}

/** Undefined for an image that names no command, as many base images. */
function commandOf(config: unknown): StartCommand | undefined {
  try {
    return startCommand(config, {});
  } catch (error) {
    if (hasCode(error, ErrorCodes.InvalidArgument)) return undefined;
    throw error;
  }
}

async function listedReads(
  tree: Ext4Tree,
  paths: readonly string[],
  warn: (message: string) => void,
): Promise<DiskReads> {
  const found = await diskReads(
    tree,
    paths.map((path) => ({ path, ranges: undefined })),
  );
  const warnOf = (left: readonly string[], why: string) => {
    if (left.length === 0) return;
    const names = left.slice(0, LEFT_SHOWN_MAX).map((path) => JSON.stringify(path));
    const more = left.length > names.length ? ', ...' : '';
    const counts = `${left.length} of the ${paths.length} files of the priority list`;
    warn(`left out, ${why}: ${counts}: ${names.join(', ')}${more}`);
  };
  warnOf(found.missing, 'as the image has no such file');
  warnOf(found.directories, 'as a list names files, and these are directories');
  return found;
}

/** With their hash trees, so that the order names the chunks of these, too. */
async function openLayers(
  layers: readonly ConvertedLayer[],
  formats: readonly LayerFormat[],
): Promise<Layer[]> {
  const dependencies = { formats, decoded: new DecodedBlocks(DECODED_BYTES) };
  const opened: Layer[] = [];
  try {
    for (const { path, hashTree } of layers) {
      opened.push(await openLayer(new StoredFile(path), dependencies, { hashTree }));
    }
    return opened;
  } catch (error) {
    for (const layer of opened) layer.close();
    throw error;
  }
}
