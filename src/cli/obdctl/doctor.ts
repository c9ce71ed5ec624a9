/** `obdctl doctor`: lists what this host lacks for lazily loaded images, with remedies. */
import type { CommandModule } from 'yargs';
import { EXIT_FAILED } from '../failure.js';
import { addressOption } from './address-option.js';
import { blockdOption } from './blockd-option.js';
import { jsonOption, printJson } from './json-option.js';
import { textTable } from './text-table.js';

interface Arguments {
  readonly address: string;
  readonly 'containerd-config': string;
  readonly blockd: string;
  readonly snapshotter: string;
  readonly 'snapshotter-config': string | undefined;
  readonly state: string;
  readonly json: boolean;
}

export const doctor: CommandModule<object, Arguments> = {
  command: 'doctor',
  describe: 'List what this host lacks, with remedies; exit status 1 if anything is missing',
  builder: (yargs) =>
    yargs.options({
      address: addressOption,
      'containerd-config': {
        type: 'string',
        requiresArg: true,
        default: '/etc/containerd/config.toml',
        describe: "containerd's configuration",
      },
      blockd: blockdOption,
      snapshotter: {
        type: 'string',
        requiresArg: true,
        default: '/run/obd-ts/snapshotter.sock',
        describe: "obd-snapshotter's socket",
      },
      'snapshotter-config': {
        type: 'string',
        requiresArg: true,
        defaultDescription: '"/etc/obd-ts/snapshotter.toml"',
        describe: "obd-snapshotter's configuration",
      },
      state: {
        type: 'string',
        requiresArg: true,
        default: '/var/lib/obd-ts',
        describe: 'Directory of the image cache',
      },
      json: jsonOption,
    }),
  handler: async ({ address, blockd, snapshotter, state, json, ...rest }) => {
    const { checkHost } = await import('../../doctor/host-checks.js');
    const checks = await checkHost({
      containerdSocket: address,
      containerdConfig: rest['containerd-config'],
      blockdSocket: blockd,
      snapshotterSocket: snapshotter,
      snapshotterConfig: rest['snapshotter-config'],
      stateDirectory: state,
    });
    const columns = [
      { title: 'CHECK' },
      { title: 'STATE' },
      { title: 'FOUND' },
      { title: 'REMEDY' },
    ];
    const rows = checks.map(({ what, state, found, remedy }) => [what, state, found, remedy]);
    if (json) printJson(checks);
    else process.stdout.write(textTable(columns, rows));
    if (checks.some(({ state }) => state === 'missing')) process.exitCode = EXIT_FAILED;
  },
};
