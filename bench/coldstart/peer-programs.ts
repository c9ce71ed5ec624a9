/** The programs of containerd and of the peers: where they are found, and which containerd is the newest. */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { run } from '../programs.js';

export interface Programs {
  /** PATH for all services: the folder of the newest containerd first. */
  readonly path: string;
  readonly containerd: { readonly version: string; readonly major: number };
  /** The path of a program, if it is in that PATH. */
  readonly find: (program: string) => string | undefined;
  /** Which of these are not there; undefined if all are. */
  readonly missing: (...programs: readonly string[]) => string | undefined;
}

/** @param folder - Searched too, and its `bin`. */
export async function findPrograms(folder: string | undefined): Promise<Programs> {
  const own = folder === undefined ? [] : [folder, join(folder, 'bin')];
  const inherited = (process.env['PATH'] ?? '').split(delimiter);
  const all = [...inherited, '/usr/local/sbin', '/usr/sbin', '/sbin', ...own].filter(existsSync);
  let newest = { folder: '', version: 'none', major: 0, rank: -1 };
  for (const each of all) {
    const program = join(each, 'containerd');
    if (!existsSync(program)) continue;
    const [version, major, minor, patch] =
      /\bv?([0-9]+)\.([0-9]+)\.([0-9]+)/.exec(await run(program, ['--version'])) ?? [];
    const rank = Number(major) * 1e6 + Number(minor) * 1e3 + Number(patch);
    if (rank > newest.rank)
      newest = { folder: each, version: version ?? '', major: Number(major), rank };
  }
  const folders = [newest.folder, ...all];
  const find = (program: string) =>
    folders.map((each) => join(each, program)).find((path) => existsSync(path));
  return {
    path: folders.join(delimiter),
    containerd: newest,
    find,
    missing: (...programs) => {
      const absent = programs.filter((program) => find(program) === undefined);
      return absent.length === 0 ? undefined : `there is no ${absent.join(', ')}`;
    },
  };
}
