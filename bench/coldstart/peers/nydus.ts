/** nydus: nydus-snapshotter with its nydusd, through FUSE, and images that nydusify makes in the RAFS format. */
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../programs.js';
import { ctrPull, needsTransfer, startContainerd } from '../containerd.js';
import type { Making, Variant } from '../image-store.js';
import type { Services } from '../services.js';
import type { Way } from '../way.js';
import { converterKey } from './converter.js';
import { LISTED_IMAGES, listedFiles } from './listed-files.js';

const CONVERTER = ['nydusify', 'nydus-image'];

interface ImageForm {
  readonly options?: readonly string[];
  /** Adds a prefetch table of the files that the reference start read. */
  readonly isListed?: boolean;
}

function converted(name: string, { options = [], isListed = false }: ImageForm = {}): Variant {
  const readFiles = async (making: Making) => (isListed ? await listedFiles(making) : []);
  return {
    name,
    key: async (making) =>
      converterKey(making.programs, CONVERTER, options, await readFiles(making)),
    make: async (repository, making) => {
      const work = await mkdtemp('/var/tmp/obdcs.');
      try {
        const list = join(work, 'files');
        await writeFile(list, (await readFiles(making)).map((file) => `${file}\n`).join(''));
        const [nydusify, image] = CONVERTER.map((program) => making.programs.find(program)!);
        await run('sh', [
          ...['-c', 'list=$1; shift; exec "$@" <"$list"', 'sh', list, nydusify!, 'convert'],
          ...['--source', `${repository}:plain`, '--target', `${repository}:${name}`],
          ...['--source-insecure', '--target-insecure', '--plain-http', '--oci'],
          ...['--nydus-image', image!, '--work-dir', join(work, 'work'), ...options],
          ...(isListed ? ['--prefetch-patterns'] : []),
        ]);
      } finally {
        await rm(work, { recursive: true });
      }
    },
  };
}

const PLAIN = converted('nydus');

/** Of nydusd: `fs_prefetch`. */
type Prefetch = { readonly enable: false } | { readonly enable: true; readonly all: boolean };

/** Starts all daemons with the values of nydus-snapshotter's sample configuration, except for prefetch and paths. */
async function start(services: Services, prefetch: Prefetch): Promise<void> {
  const daemon = {
    device: {
      backend: {
        type: 'registry',
        config: { scheme: 'http', timeout: 5, connect_timeout: 5, retry_limit: 2 },
      },
      cache: { type: 'blobcache' },
    },
    mode: 'direct',
    digest_validate: false,
    iostats_files: false,
    enable_xattr: true,
    amplify_io: 1 << 20,
    fs_prefetch: {
      enable: prefetch.enable,
      ...(prefetch.enable
        ? { threads_count: 8, merging_size: 1 << 20, prefetch_all: prefetch.all }
        : {}),
    },
  };
  await writeFile(services.file('nydusd.json'), JSON.stringify(daemon));
  // By default nydusd raises its limit of open files to one million, and exits if it may not.
  const nydusd = services.file('nydusd');
  await writeFile(nydusd, '#!/bin/sh\nexec nydusd "$@" --rlimit-nofile 0\n');
  await chmod(nydusd, 0o755);
  const config = `version = 1
root = "${services.file('snapshotter')}"
address = "${services.file('snapshotter.sock')}"
daemon_mode = "dedicated"
[system]
enable = true
address = "${services.file('system.sock')}"
[daemon]
nydusd_config = "${services.file('nydusd.json')}"
nydusd_path = "${nydusd}"
fs_driver = "fusedev"
recover_policy = "failover"
threads_number = 4
[log]
log_to_stdout = true
`;
  await writeFile(services.file('snapshotter.toml'), config);
  await services.start(
    'snapshotter',
    'test -S "$DIR/snapshotter.sock"',
    ...['containerd-nydus-grpc', '--config', services.file('snapshotter.toml')],
  );
  await startContainerd(services, { proxies: { nydus: 'snapshotter.sock' } });
}

const NYDUS: Way = {
  name: 'nydus',
  title: 'nydus, without prefetch',
  kind: 'peer',
  variant: PLAIN,
  snapshotter: 'nydus',
  missing: (programs) =>
    programs.missing('containerd-nydus-grpc', 'nydusd', ...CONVERTER) ?? needsTransfer(programs),
  start: async (services) => await start(services, { enable: false }),
  pull: ctrPull('nydus'),
};

export const NYDUS_WAYS: readonly Way[] = [
  NYDUS,
  {
    ...NYDUS,
    name: 'nydus-batch',
    title: 'nydus, small chunks compressed together, without prefetch',
    variant: converted('nydus.batch', { options: ['--batch-size', '0x100000'] }),
    quickImages: [],
  },
  {
    ...NYDUS,
    name: 'nydus-all',
    title: 'nydus, everything prefetched',
    quickImages: ['dense'],
    start: async (services) => await start(services, { enable: true, all: true }),
  },
  {
    ...NYDUS,
    name: 'nydus-list',
    title: 'nydus, the files of an earlier start prefetched',
    variant: converted('nydus.list', { isListed: true }),
    onDemand: true,
    images: LISTED_IMAGES,
    start: async (services) => await start(services, { enable: true, all: false }),
  },
];
