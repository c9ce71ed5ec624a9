/**
 * `obdconv SRC DST`: its command line and exit status.
 *
 * An interruption undoes unfinished work, as a failure does. The conversion's code is loaded when it runs, so that
 * --help needs no native add-on.
 */
import { ErrorCodes, ObdError } from '../../errors.js';
import { requireNode } from '../../node-version.js';
import { commandLine } from '../command-line.js';
import { reportFailure } from '../failure.js';
import { interruption } from '../interruption.js';
import type { ConversionRequest } from './obdconv-run.js';

const PROGRAM = 'obdconv';
const KIB = 1024;
const GIB = 1 << 30;
/**
 * Larger blocks are unsafe: the length of a compressed block has 16 bits, so an incompressible 64 KiB block does not
 * fit.
 */
const BLOCK_KIB = [4, 8, 16, 32];
const VSIZE_GIB_DEFAULT = 64;
/** Memory holds a bit per 4 KiB of it: 32 MiB. */
const VSIZE_GIB_MAX = 1024;

/** @returns The exit status. */
export async function obdconv(args: readonly string[]): Promise<number> {
  const stop = new AbortController();
  const told = interruption();
  told.addEventListener('abort', () => stop.abort(told.reason));
  try {
    const request = await parse(args);
    if (request === undefined) return 0;
    requireNode();
    const { runConversion } = await import('./obdconv-run.js');
    process.stdout.write(`${await runConversion(request, stop)}\n`);
    return 0;
  } catch (error) {
    return reportFailure(PROGRAM, error);
  }
}

/** @returns Undefined for --help and --version, after printing them. */
async function parse(args: readonly string[]): Promise<ConversionRequest | undefined> {
  let request: ConversionRequest | undefined;
  await commandLine(PROGRAM, args)
    .command(
      '$0 <src> <dst>',
      'Convert an OCI or Docker image into an overlaybd image, layer by layer.\n\n' +
        'SRC and DST are docker://HOST/REPOSITORY:TAG, the same without docker://, or oci:DIR[:TAG].\n' +
        'Logins are those of `docker login`. The digest of what was written goes to standard output.',
      (command) =>
        command
          .positional('src', { type: 'string', demandOption: true, describe: 'Image to convert' })
          .positional('dst', {
            type: 'string',
            demandOption: true,
            describe: 'Name of the converted image',
          })
          .options(OPTIONS)
          .conflicts('all-platforms', 'platform')
          .example('$0 docker://registry.example/app:1 docker://registry.example/app:1-obd', '')
          .example('$0 debian:12 oci:./debian', 'from Docker Hub to a directory')
          .example(
            '$0 --all-platforms oci:./app:1 registry.example/app:1-obd',
            'all images of an index',
          )
          .example(
            '$0 --priority-list files.txt app:1 registry.example/app:1-obd',
            'with known files first',
          )
          .example('$0 --plain-http registry.lan:5000 ...', 'a registry without TLS'),
      (parsed) => {
        request = {
          source: parsed.src,
          destination: parsed.dst,
          workDirectory: parsed.workDir,
          force: parsed.force,
          allPlatforms: parsed.allPlatforms === true,
          platform: parsed.platform,
          plainHttpHosts: parsed.plainHttp,
          predict: parsed.predict,
          priorityList: parsed.priorityList,
          format: {
            algorithm: parsed.algorithm,
            blockBytes: parsed.bs * KIB,
            virtualBytes: virtualGib(parsed.vsize) * GIB,
          },
        };
      },
    )
    .help()
    .exitProcess(false)
    .parseAsync();
  return request;
}

const OPTIONS = {
  platform: {
    type: 'string',
    requiresArg: true,
    describe: "From an index: the image for this platform, e.g. linux/arm64; default this host's",
  },
  'all-platforms': {
    type: 'boolean',
    describe: 'From an index: all images, into an index',
  },
  force: {
    type: 'boolean',
    default: false,
    describe: 'Convert even if DST is SRC itself: the converted image replaces it',
  },
  'work-dir': {
    type: 'string',
    requiresArg: true,
    default: process.env['TMPDIR'] || '/var/tmp',
    describe: 'Directory for converted layers until they are sent',
  },
  algorithm: {
    choices: ['lz4', 'zstd'] as const,
    default: 'zstd' as const,
    describe: 'Compression of blocks; lz4 is larger, and faster to read from this disk',
  },
  bs: {
    type: 'number',
    choices: BLOCK_KIB,
    default: 32,
    describe: 'Block size in KiB; larger blocks compress better but read more than needed',
  },
  vsize: {
    type: 'number',
    requiresArg: true,
    default: VSIZE_GIB_DEFAULT,
    describe: 'Size of the virtual disk in GiB; unused space costs almost nothing',
  },
  predict: {
    type: 'boolean',
    default: true,
    describe: 'Store with the image what its entry point will read; --no-predict to omit',
  },
  'priority-list': {
    type: 'string',
    requiresArg: true,
    describe: 'Instead of a prediction: a FILE of absolute paths, one per line, that a start reads',
  },
  'plain-http': {
    type: 'string',
    array: true,
    requiresArg: true,
    nargs: 1,
    default: [] as string[],
    describe: 'HOST or HOST:PORT that speaks plain HTTP; loopback needs no entry. May be repeated',
  },
} as const;

function virtualGib(vsize: number): number {
  if (Number.isSafeInteger(vsize) && vsize >= 1 && vsize <= VSIZE_GIB_MAX) return vsize;
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `--vsize is a whole number of GiB from 1 to ${VSIZE_GIB_MAX}, not ${vsize}`,
  );
}
