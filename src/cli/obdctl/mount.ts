/** `obdctl mount` and `obdctl umount`: an image as a directory of this host, without containerd. */
import type { CommandModule } from 'yargs';
import { blockdOption } from './blockd-option.js';
import { hostsDirOption } from './hosts-dir-option.js';
import { platformOption } from './platform-option.js';

interface MountArguments {
  readonly image: string;
  readonly directory: string;
  readonly blockd: string;
  readonly platform: string | undefined;
  readonly 'plain-http': boolean;
  readonly 'hosts-dir': string;
}

export const mount: CommandModule<object, MountArguments> = {
  command: 'mount <image> <directory>',
  describe: 'Mount an overlaybd image read-only, fetching only what is read',
  builder: (yargs) =>
    yargs
      .positional('image', {
        type: 'string',
        demandOption: true,
        describe: 'A reference, oci:DIR[:TAG], or the path of an image config (config.v1.json)',
      })
      .positional('directory', {
        type: 'string',
        demandOption: true,
        describe: 'An existing directory',
      })
      .options({
        blockd: blockdOption,
        platform: platformOption,
        'plain-http': {
          type: 'boolean',
          default: false,
          describe: 'The registry speaks HTTP; name it in plain_http of obd-blockd, too',
        },
        'hosts-dir': hostsDirOption,
      })
      .example('$0 mount registry.example/app:1.0-obd /mnt', 'an image that obdconv made')
      .example('$0 mount oci:layout:obd /mnt', 'an image in an OCI layout'),
  handler: async ({ image, directory, blockd, platform, ...rest }) => {
    const { runMount } = await import('./mount-run.js');
    const { 'plain-http': plainHttp, 'hosts-dir': hostsDirectory } = rest;
    await runMount(image, directory, { blockd, platform, plainHttp, hostsDirectory });
  },
};

interface UmountArguments {
  readonly directory: string;
  readonly blockd: string;
}

export const umount: CommandModule<object, UmountArguments> = {
  command: 'umount <directory>',
  describe: 'Undo `obdctl mount`',
  builder: (yargs) =>
    yargs
      .positional('directory', {
        type: 'string',
        demandOption: true,
        describe: 'Directory that it is mounted on',
      })
      .options({ blockd: blockdOption }),
  handler: async ({ directory, blockd }) => {
    const { runUmount } = await import('./umount-run.js');
    await runUmount(directory, blockd);
  },
};
