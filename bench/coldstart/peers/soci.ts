/** soci-snapshotter with its second index format, as shipped: the plain layers, and an index into each larger one. */
import { writeFile } from 'node:fs/promises';
import { ctrPull, needsTransfer, startContainerd } from '../containerd.js';
import { FAR_HOST } from '../far-registry.js';
import type { Variant } from '../image-store.js';
import type { Services } from '../services.js';
import type { Way } from '../way.js';
import { converterKey, convertInContainerd } from './converter.js';
import { LISTED_IMAGES, listedFiles } from './listed-files.js';

const CONVERT = ['--content-store', 'containerd', 'convert'];

const IMAGE: Variant = {
  name: 'soci',
  key: ({ programs }) => converterKey(programs, ['soci']),
  make: async (repository, { programs }) =>
    await convertInContainerd(programs, repository, 'soci', (services, from, to) =>
      services.client('soci', '--root', services.file('soci'), ...CONVERT, from, to),
    ),
};

const LISTED: Variant = {
  name: 'soci.list',
  key: async (making) => converterKey(making.programs, ['soci'], await listedFiles(making)),
  make: async (repository, making) =>
    await convertInContainerd(
      making.programs,
      repository,
      'soci.list',
      async (services, from, to) => {
        const list = services.file('files.json');
        await writeFile(list, JSON.stringify(await listedFiles(making)));
        const root = ['--root', services.file('soci')];
        const options = ['--prefetch-files-json', list];
        return services.client('soci', ...root, ...CONVERT, ...options, from, to);
      },
    ),
};

async function start(services: Services, more = ''): Promise<void> {
  // Without the scheme in `host` soci pulls every layer whole. It asks containerd's store for manifests of small layers.
  const config = `[content_store]
containerd_address = "${services.file('containerd.sock')}"
[[resolver.host."${FAR_HOST}".mirrors]]
host = "http://${FAR_HOST}"
insecure = true
${more}`;
  await writeFile(services.file('snapshotter.toml'), config);
  await services.start(
    'snapshotter',
    'test -S "$DIR/snapshotter.sock"',
    ...['soci-snapshotter-grpc', '--config', services.file('snapshotter.toml')],
    ...['--root', services.file('snapshotter'), '--address', services.file('snapshotter.sock')],
  );
  await startContainerd(services, { proxies: { soci: 'snapshotter.sock' } });
}

const SOCI: Way = {
  name: 'soci',
  title: 'soci, index v2',
  kind: 'peer',
  variant: IMAGE,
  snapshotter: 'soci',
  missing: (programs) =>
    programs.missing('soci-snapshotter-grpc', 'soci') ?? needsTransfer(programs),
  start: (services) => start(services),
  pull: ctrPull('soci'),
};

export const SOCI_WAYS: readonly Way[] = [
  SOCI,
  {
    ...SOCI,
    name: 'soci-list',
    title: 'soci, index v2 with the files of an earlier start to prefetch',
    variant: LISTED,
    onDemand: true,
    images: LISTED_IMAGES,
    start: (services) => start(services, '[prefetch]\nenable = true\n'),
  },
];
