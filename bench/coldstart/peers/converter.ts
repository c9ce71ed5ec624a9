/** What the peers' own converters, which make their forms of the images, have in common. */
import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { startContainerd } from '../containerd.js';
import type { Programs } from '../peer-programs.js';
import { Services } from '../services.js';

/** Changes with the programs and with how they are called. */
export function converterKey(
  programs: Programs,
  names: readonly string[],
  ...how: readonly unknown[]
): string {
  const files = names.map((name) => {
    const { size, mtimeMs } = statSync(programs.find(name)!);
    return [size, mtimeMs];
  });
  const text = JSON.stringify([files, how]);
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** Pulls `REPOSITORY:plain` into a containerd of its own, converts it there, and pushes the result. */
export async function convertInContainerd(
  programs: Programs,
  repository: string,
  name: string,
  convert: (services: Services, from: string, to: string) => string[] | Promise<string[]>,
): Promise<void> {
  const services = await Services.make([], programs.path);
  try {
    await startContainerd(services);
    const [from, to] = [`${repository}:plain`, `${repository}:${name}`];
    await services.run(services.ctr('content', 'fetch', '--plain-http', from));
    await services.run(await convert(services, from, to));
    await services.run(services.ctr('images', 'push', '--plain-http', to));
  } finally {
    await services.stop();
  }
}
