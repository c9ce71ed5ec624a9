/**
 * `obdctl layer`: layer files on this machine, without a daemon. The commands' code is loaded when one runs, so that
 * `obdctl doctor` works on a host without the native add-on.
 */
import type { CommandModule } from 'yargs';
import { jsonOption } from './json-option.js';

const LAYER_FORMS = 'A layer file; or DATA,INDEX for the two files of a writable layer';
const target = {
  type: 'string',
  array: true,
  // Without nargs, the option would take the layers, too.
  nargs: 1,
  requiresArg: true,
  default: [] as string[],
  describe: 'TurboOCI: uncompressed tar of the original layer; once for each layer',
} as const;

interface InspectArguments {
  readonly layers: string[];
  readonly target: string[];
  readonly json: boolean;
}

const inspect: CommandModule<object, InspectArguments> = {
  command: 'inspect <layers..>',
  describe: 'Show what layer files contain',
  builder: (yargs) =>
    yargs
      .positional('layers', {
        type: 'string',
        array: true,
        demandOption: true,
        describe: LAYER_FORMS,
      })
      .options({ target, json: jsonOption })
      .example('$0 layer inspect overlaybd.commit', 'a layer as it is in a registry')
      .example('$0 layer inspect writable_data,writable_index', 'a writable layer'),
  handler: async ({ layers, target, json }) => {
    const { inspectLayers } = await import('./layer-inspect.js');
    await inspectLayers(layers, target, json);
  },
};

interface ExportArguments {
  readonly out: string;
  readonly layers: string[];
  readonly target: string[];
  readonly force: boolean;
}

const exportCommand: CommandModule<object, ExportArguments> = {
  command: 'export <out> <layers..>',
  describe: 'Write the virtual disk of a stack of layers as a sparse raw file',
  builder: (yargs) =>
    yargs
      .positional('out', { type: 'string', demandOption: true, describe: 'File to write' })
      .positional('layers', {
        type: 'string',
        array: true,
        demandOption: true,
        describe: `Bottom layer first. ${LAYER_FORMS}`,
      })
      .options({
        target,
        force: {
          type: 'boolean',
          default: false,
          describe: 'Replace OUT, and stack layers in spite of their parents',
        },
      })
      .example('$0 layer export disk.raw base.commit app.commit', 'two layers as one disk'),
  handler: async ({ out, layers, target, force }) => {
    const { exportLayers } = await import('./layer-export.js');
    await exportLayers(out, layers, { targets: target, force });
  },
};

export const layer: CommandModule = {
  command: 'layer',
  describe: 'Inspect or export layer files',
  builder: (yargs) =>
    yargs.command(inspect).command(exportCommand).demandCommand(1, 'Name a command'),
  handler: () => {},
};
