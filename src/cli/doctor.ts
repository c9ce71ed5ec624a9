/** `obdctl doctor`: what this host lacks for lazily loaded images, and how to get it. */
import type { CommandModule } from 'yargs';
import { EXIT_FAILED } from './failure.js';
import { jsonOption, printJson } from './json-option.js';
import { textTable } from './text-table.js';

interface Arguments {
  readonly address: string;
  readonly containerdConfig: string;
  readonly blockd: string;
  readonly snapshotter: string;
  readonly state: string;
  readonly json: boolean;
}

export const doctor: CommandModule<object, Arguments> = {
  command: 'doctor',
  describe: 'Say what is missing on this host and how to get it; exit status 1 if anything is',
  builder: (yargs) =>
    yargs.options({
      address: {
        alias: 'a',
        type: 'string',
        default: '/run/containerd/containerd.sock',
        describe: "containerd's socket",
      },
      containerdConfig: {
        type: 'string',
        default: '/etc/containerd/config.toml',
        describe: "containerd's configuration",
      },
      blockd: {
        type: 'string',
        default: '/run/obd-ts/blockd.sock',
        describe: "obd-blockd's socket",
      },
      snapshotter: {
        type: 'string',
        default: '/run/obd-ts/snapshotter.sock',
        describe: "obd-snapshotter's socket",
      },
      state: { type: 'string', default: '/var/lib/obd-ts', describe: 'Where images are cached' },
      json: jsonOption,
    }),
  handler: async ({ address, containerdConfig, blockd, snapshotter, state, json }) => {
    const { checkHost } = await import('./host-checks.js');
    const checks = await checkHost({
      containerdSocket: address,
      containerdConfig,
      blockdSocket: blockd,
      snapshotterSocket: snapshotter,
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
