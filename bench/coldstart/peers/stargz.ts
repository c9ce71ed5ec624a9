/** stargz-snapshotter as shipped, and eStargz images without a list of files to prefetch. */
import { writeFile } from 'node:fs/promises';
import { startContainerd } from '../containerd.js';
import { FAR_HOST } from '../far-registry.js';
import type { Variant } from '../image-store.js';
import type { Services } from '../services.js';
import type { Way } from '../way.js';
import { converterKey, convertInContainerd } from './converter.js';

const IMAGE: Variant = {
  name: 'stargz',
  key: ({ programs }) => converterKey(programs, ['ctr-remote']),
  make: async (repository, { programs }) =>
    await convertInContainerd(programs, repository, 'stargz', (services, from, to) =>
      services.client('ctr-remote', 'images', 'convert', '--estargz', '--oci', from, to),
    ),
};

async function start(services: Services): Promise<void> {
  const config = `[[resolver.host."${FAR_HOST}".mirrors]]
host = "${FAR_HOST}"
insecure = true
`;
  await writeFile(services.file('snapshotter.toml'), config);
  await services.start(
    'snapshotter',
    'test -S "$DIR/snapshotter.sock"',
    ...['containerd-stargz-grpc', '--config', services.file('snapshotter.toml')],
    ...['--root', services.file('snapshotter'), '--address', services.file('snapshotter.sock')],
  );
  await startContainerd(services, { proxies: { stargz: 'snapshotter.sock' } });
}

export const STARGZ: Way = {
  name: 'stargz',
  title: 'stargz, eStargz',
  kind: 'peer',
  variant: IMAGE,
  snapshotter: 'stargz',
  /** The slowest of all there by far: it reads in pieces of 50,000 bytes. */
  quickImages: ['python'],
  missing: (programs) => programs.missing('containerd-stargz-grpc', 'ctr-remote'),
  start,
  pull: (services, reference) =>
    services.client('ctr-remote', 'images', 'rpull', '--plain-http', reference),
};
