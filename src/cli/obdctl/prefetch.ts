/** `obdctl prefetch`: fetches an image into the cache ahead of its first start. */
import type { CommandModule } from 'yargs';
import { blockdOption } from './blockd-option.js';
import { hostsDirOption } from './hosts-dir-option.js';
import { jsonOption } from './json-option.js';
import { platformOption } from './platform-option.js';

interface Arguments {
  readonly image: string;
  readonly wait: boolean;
  readonly blockd: string;
  readonly json: boolean;
  readonly platform: string | undefined;
  readonly 'plain-http': boolean;
  readonly 'hosts-dir': string;
}

export const prefetch: CommandModule<object, Arguments> = {
  command: 'prefetch <image>',
  describe: 'Fetch an overlaybd image into the cache in the background',
  builder: (yargs) =>
    yargs
      .positional('image', {
        type: 'string',
        demandOption: true,
        describe: 'A reference, or the path of an image config (config.v1.json)',
      })
      .options({
        wait: {
          type: 'boolean',
          default: false,
          describe: 'Return when all of it is in the cache; fail if the cache is full',
        },
        blockd: blockdOption,
        json: jsonOption,
        platform: platformOption,
        'plain-http': {
          type: 'boolean',
          default: false,
          describe: 'The registry speaks HTTP; name it in plain_http of obd-blockd, too',
        },
        'hosts-dir': hostsDirOption,
      })
      .example('$0 prefetch registry.example/app:1.0-obd', 'begin, and return')
      .example('$0 prefetch --wait registry.example/app:1.0-obd', 'return when it is here')
      .epilogue(
        'It yields to reads of devices, and evicts nothing that a device uses. `obdctl devices` shows its progress.',
      ),
  handler: async ({ image, ...options }) => {
    const { runPrefetch } = await import('./prefetch-run.js');
    await runPrefetch(image, options);
  },
};
