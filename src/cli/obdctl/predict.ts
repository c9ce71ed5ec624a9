/** `obdctl predict`: what an image will read when it starts. */
import type { CommandModule } from 'yargs';
import { hostsDirOption } from './hosts-dir-option.js';
import { jsonOption } from './json-option.js';
import { platformOption } from './platform-option.js';
import { startOptions } from './start-options.js';

interface PredictArguments {
  readonly image: string;
  readonly entrypoint: string | undefined;
  readonly args: string | undefined;
  readonly env: string[];
  readonly cwd: string | undefined;
  readonly platform: string | undefined;
  readonly 'plain-http': boolean;
  readonly 'hosts-dir': string;
  readonly json: boolean;
}

export const predict: CommandModule<object, PredictArguments> = {
  command: 'predict <image>',
  describe: 'List what an overlaybd image will read when it starts, without running it',
  builder: (yargs) =>
    yargs
      .positional('image', {
        type: 'string',
        demandOption: true,
        describe: 'A reference, oci:DIR[:TAG], or the path of an image config (config.v1.json)',
      })
      .options({
        ...startOptions,
        platform: platformOption,
        'plain-http': {
          type: 'boolean',
          default: false,
          describe: 'The registry does not speak TLS',
        },
        'hosts-dir': hostsDirOption,
        json: jsonOption,
      })
      .example('$0 predict registry.example/app:1.0-obd', 'its entry point')
      .example('$0 predict oci:layout:obd --json', 'for a program, with all byte ranges')
      .example(
        `$0 predict --entrypoint '["python3"]' --args '["app.py"]' --cwd /srv oci:layout:obd`,
        'another command',
      )
      .epilogue(
        'Tier 1 is certain and read first, tier 2 is likely, tier 3 is worth fetching on an idle link only. ' +
          'Nothing of the image is run; only the files that the rules look into are fetched.',
      ),
  handler: async ({ image, 'plain-http': plainHttp, 'hosts-dir': hostsDirectory, ...options }) => {
    const { runPredict } = await import('./predict-run.js');
    await runPredict(image, { ...options, plainHttp, hostsDirectory });
  },
};
