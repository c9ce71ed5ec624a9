/** The images that obdconv makes, one for each compression. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../programs.js';
import { ROOT } from './folders.js';
import type { Variant } from './image-store.js';

/** The image that obdconv makes with these options. */
function converted(name: string, ...options: string[]): Variant {
  return {
    name,
    key: obdconvKey,
    make: async (repository) =>
      await run(process.execPath, [
        join(ROOT, 'dist/bin/obdconv.js'),
        ...options,
        `docker://${repository}:plain`,
        `docker://${repository}:${name}`,
      ]),
  };
}

/** An image whose start is not known. */
export const OBD = converted('obd', '--no-predict');

/** As obdconv makes it by default. */
export const PREDICTED = converted('obd.predicted');

/** Other compressions than the default, by which the default is chosen. */
export const COMPRESSIONS: readonly Variant[] = [
  converted('obd.lz4', '--no-predict', '--algorithm', 'lz4', '--bs', '4'),
  converted('obd.lz16', '--no-predict', '--algorithm', 'lz4', '--bs', '16'),
  converted('obd.z4', '--no-predict', '--algorithm', 'zstd', '--bs', '4'),
  converted('obd.z16', '--no-predict', '--algorithm', 'zstd', '--bs', '16'),
  converted('obd.z32', '--no-predict', '--algorithm', 'zstd', '--bs', '32'),
];

/** Changes with each build of obdconv. */
export function obdconvKey(): string {
  const folder = join(ROOT, 'dist/bin');
  const hash = createHash('sha256');
  for (const name of readdirSync(folder).toSorted()) {
    if (/^(obdconv-main|.*-[A-Z0-9]{8})\.js$|codec.*\.node$/.test(name)) {
      hash.update(name).update(readFileSync(join(folder, name)));
    }
  }
  return hash.digest('hex').slice(0, 16);
}
