/** `obdctl record`: records what a start of an image reads, for all nodes; and lists and deletes such records. */
import type { CommandModule } from 'yargs';
import { ErrorCodes, ObdError } from '../../errors.js';
import { addressOption } from './address-option.js';
import { blockdOption } from './blockd-option.js';
import { hostsDirOption } from './hosts-dir-option.js';
import { jsonOption } from './json-option.js';
import { platformOption } from './platform-option.js';
import { startOptions } from './start-options.js';

const NAME_CHARACTERS_MAX = 256;
const TIME_SECONDS_MAX = 3600;

interface RecordArguments {
  readonly image: string;
  readonly time: number | undefined;
  readonly 'until-output': string | undefined;
  readonly 'until-http': string | undefined;
  readonly entrypoint: string | undefined;
  readonly args: string | undefined;
  readonly env: string[];
  readonly user: string | undefined;
  readonly cwd: string | undefined;
  readonly mount: string[];
  readonly net: string;
  readonly name: string | undefined;
  readonly publish: boolean;
  readonly output: string | undefined;
  readonly 'trace-layer': string | undefined;
  readonly list: boolean;
  readonly delete: boolean;
  readonly address: string;
  readonly namespace: string;
  readonly snapshotter: string;
  readonly blockd: string;
  readonly platform: string | undefined;
  readonly 'plain-http': boolean;
  readonly 'hosts-dir': string;
  readonly json: boolean;
}

export const record: CommandModule<object, RecordArguments> = {
  command: 'record <image>',
  describe: 'Run an image once, and publish what its start reads for all nodes',
  builder: (yargs) =>
    yargs
      .positional('image', {
        type: 'string',
        demandOption: true,
        describe: 'host/repository:tag, or host/repository@digest, of an overlaybd image',
      })
      .options({
        time: {
          type: 'number',
          requiresArg: true,
          describe: 'Record for so many seconds',
        },
        'until-output': {
          type: 'string',
          requiresArg: true,
          describe: 'Record until a line of the output matches this regular expression',
        },
        'until-http': {
          type: 'string',
          requiresArg: true,
          describe: 'Record until this URL answers with a success; needs --net host',
        },
        ...startOptions,
        user: {
          type: 'string',
          requiresArg: true,
          describe: "Instead of the image's User: a name or a number, perhaps with :GROUP",
        },
        mount: {
          type: 'string',
          array: true,
          nargs: 1,
          default: [],
          describe: 'type=bind,src=/host,dst=/container,options=rbind:ro; may be repeated',
        },
        net: {
          choices: ['none', 'host'],
          default: 'none',
          describe: 'The network of the container',
        },
        name: {
          type: 'string',
          requiresArg: true,
          describe: 'A name for this way to start the image, where the command line does not tell',
        },
        publish: {
          type: 'boolean',
          default: true,
          describe: 'Publish it for other nodes, with the login of obd-blockd',
        },
        output: {
          type: 'string',
          requiresArg: true,
          describe: 'Write the load order to this file, too',
        },
        'trace-layer': {
          type: 'string',
          requiresArg: true,
          describe:
            "Push another tag of the image with overlaybd's trace of the start, by `docker login`",
        },
        list: {
          type: 'boolean',
          default: false,
          describe: 'Record nothing; list the load orders that are published',
        },
        delete: {
          type: 'boolean',
          default: false,
          describe: 'Record nothing; delete the load orders that are published',
        },
        json: jsonOption,
        platform: platformOption,
        namespace: {
          alias: 'n',
          type: 'string',
          requiresArg: true,
          default: process.env['CONTAINERD_NAMESPACE'] || 'default',
          describe: "containerd's namespace",
        },
        snapshotter: {
          type: 'string',
          requiresArg: true,
          default: 'obd-ts',
          describe: 'The snapshotter that serves the layers',
        },
        address: addressOption,
        blockd: blockdOption,
        'plain-http': {
          type: 'boolean',
          default: false,
          describe: 'The registry does not speak TLS; name it in plain_http of obd-blockd, too',
        },
        'hosts-dir': hostsDirOption,
      })
      .conflicts('time', ['until-output', 'until-http'])
      .conflicts('until-output', 'until-http')
      .check(({ time, name, list, delete: isDelete, net, 'until-http': url }) => {
        if (time !== undefined && !(time > 0 && time <= TIME_SECONDS_MAX)) {
          throw misused(`--time is ${time}: wanted are seconds, at most ${TIME_SECONDS_MAX}`);
        }
        if ((name?.length ?? 0) > NAME_CHARACTERS_MAX) {
          throw misused(`--name has more than ${NAME_CHARACTERS_MAX} characters`);
        }
        if (list && isDelete) throw misused('--list and --delete exclude each other');
        if (url === undefined) return true;
        if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
          throw misused(`--until-http is no http URL: ${url}`);
        }
        if (net !== 'host') throw misused('--until-http needs --net host');
        return true;
      })
      .example('$0 record registry.example/app:1.0-obd', 'until it has read nothing for 10 s')
      .example(
        '$0 record --net host --until-http http://127.0.0.1:8080/ registry.example/app:1.0-obd',
        'a server, until it answers',
      )
      .example(
        `$0 record --args '["worker"]' registry.example/app:1.0-obd`,
        'another way to start it',
      )
      .example(
        '$0 record --no-publish --trace-layer registry.example/app:1.0-traced registry.example/app:1.0-obd',
        "for nodes with overlaybd's own tools",
      )
      .example('$0 record --list registry.example/app:1.0-obd', 'a row for each')
      .example('$0 record --delete registry.example/app:1.0-obd', 'remove all of them')
      .example('$0 record --delete --name nightly registry.example/app:1.0-obd', 'those of a name')
      .epilogue(
        'Without --time and --until-..., a recording ends 10 s after the last read, after 60 s at most. ' +
          'No container of the image may be on this host. --list and --delete use the login of `docker login`.',
      ),
  handler: async ({ image, list, delete: isDelete, ...options }) => {
    const { 'plain-http': plainHttp, 'hosts-dir': hostsDirectory, platform, json } = options;
    if (list || isDelete) {
      const { deleteLoadOrders, listLoadOrders } = await import('./load-orders-run.js');
      const run = isDelete ? deleteLoadOrders : listLoadOrders;
      await run(image, { platform, name: options.name, plainHttp, hostsDirectory, json });
      return;
    }
    const { runRecord } = await import('./record-run.js');
    const { 'until-output': untilOutput, 'until-http': untilHttp, ...rest } = options;
    const { 'trace-layer': traceLayer } = options;
    const conditions = { untilOutput, untilHttp };
    await runRecord(image, { ...rest, ...conditions, traceLayer, plainHttp, hostsDirectory });
  },
};

function misused(problem: string): ObdError {
  return new ObdError(ErrorCodes.InvalidArgument, `${problem}; see obdctl record --help`);
}
