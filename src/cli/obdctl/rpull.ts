/** `obdctl rpull`: pulls an image into containerd, lazily. */
import type { CommandModule } from 'yargs';
import { ErrorCodes, ObdError } from '../../errors.js';
import { addressOption } from './address-option.js';
import { hostsDirOption } from './hosts-dir-option.js';

interface RpullArguments {
  readonly reference: string;
  readonly address: string;
  readonly namespace: string;
  readonly snapshotter: string;
  readonly platform: string | undefined;
  readonly 'snapshotter-label': string[];
  readonly 'plain-http': boolean;
  readonly 'hosts-dir': string;
}

export const rpull: CommandModule<object, RpullArguments> = {
  command: 'rpull <reference>',
  describe: 'Pull an image into containerd without fetching its layers',
  builder: (yargs) =>
    yargs
      .positional('reference', {
        type: 'string',
        demandOption: true,
        describe: 'host/repository:tag, or host/repository@digest',
      })
      .options({
        address: addressOption,
        namespace: {
          alias: 'n',
          type: 'string',
          requiresArg: true,
          default: process.env['CONTAINERD_NAMESPACE'] || 'default',
          describe: "containerd's namespace: k8s.io for Kubernetes",
        },
        snapshotter: {
          type: 'string',
          requiresArg: true,
          default: 'obd-ts',
          describe: 'The snapshotter that serves the layers',
        },
        platform: {
          type: 'string',
          requiresArg: true,
          describe: 'os/architecture[/variant] of the image, if not that of this machine',
        },
        'snapshotter-label': {
          type: 'string',
          array: true,
          nargs: 1,
          default: [],
          describe:
            "KEY=VALUE, a label of the layers' snapshots, beginning with containerd.io/snapshot/; may be repeated",
        },
        'plain-http': {
          type: 'boolean',
          default: false,
          describe: 'The registry does not speak TLS',
        },
        'hosts-dir': hostsDirOption,
      })
      .example('$0 rpull registry.example/app:1.0-obd', 'an image that obdconv made')
      .example('$0 rpull --namespace k8s.io registry.example/app:1.0-obd', 'for Kubernetes')
      .example('$0 rpull --plain-http 10.0.0.1:5000/app:obd', 'from a registry without TLS')
      .example(
        "$0 rpull --snapshotter-label 'containerd.io/snapshot/obd-ts.command=app worker' registry.example/app:1.0-obd",
        'for a container with another command line',
      )
      .example('ctr run --rm --snapshotter obd-ts registry.example/app:1.0-obd app', 'runs it')
      .epilogue(
        'Layers that the snapshotter cannot serve lazily are downloaded and unpacked, with a warning. ' +
          'Logins are those of `docker login`.',
      ),
  handler: async ({ 'plain-http': plainHttp, 'hosts-dir': hostsDirectory, ...options }) => {
    const { runRpull } = await import('./rpull-run.js');
    const labels = snapshotLabels(options['snapshotter-label']);
    await runRpull({ ...options, plainHttp, hostsDirectory, labels });
  },
};

/** @throws {ObdError} `InvalidArgument` for a label that no snapshotter gets. */
function snapshotLabels(texts: readonly string[]): Readonly<Record<string, string>> {
  const labels = texts.map((text) => {
    const [, key = '', value = ''] = /^(containerd\.io\/snapshot\/[^=]+)=(.*)$/s.exec(text) ?? [];
    if (key !== '') return [key, value];
    const message = `--snapshotter-label is ${text}: wanted is containerd.io/snapshot/NAME=VALUE; see obdctl rpull --help`;
    throw new ObdError(ErrorCodes.InvalidArgument, message);
  });
  return Object.fromEntries(labels);
}
