/** Where an interpreter of Python has its modules: prefix, standard library, directories of packages. */
import { dirname } from 'node:path';
import { filesMatching } from './glob-files.js';
import type { ImageFiles } from './image-files.js';
import type { Program } from './program.js';

const CONFIG_BYTES_MAX = 16 << 10;
/** Lines of all .pth files that add a directory. */
const ADDED_PATHS_MAX = 64;

export interface PythonLayout {
  /** Of compiled modules: `cpython-311`. */
  readonly tag: string;
  readonly minor: number;
  readonly standard: string;
  /** sys.path but for the script's directory, in order. */
  readonly paths: readonly string[];
  /** Directories of packages that exist. */
  readonly sites: readonly string[];
  /** .pth files, all read at start. */
  readonly pthFiles: readonly string[];
}

/** Undefined if the image has no standard library for it. */
export async function pythonLayout(
  { file, path, env }: Program,
  image: ImageFiles,
): Promise<PythonLayout | undefined> {
  const version = /python(3)\.(\d{1,2})/.exec(file.path) ?? /python(3)\.(\d{1,2})/.exec(path);
  if (version === null) return undefined;
  const minor = Number(version[2]);
  const name = `python3.${minor}`;
  const environment = await virtualEnvironment(path, image);
  const prefix = dirname(dirname(file.path));
  const standard = [prefix, '/usr', '/usr/local'].map((each) => `${each}/lib/${name}`);
  let found: string | undefined;
  for (const each of standard) {
    if (found === undefined && (await image.findFile(`${each}/os.py`)) !== undefined) found = each;
  }
  if (found === undefined) return undefined;
  const candidates =
    environment === undefined
      ? [
          `/usr/local/lib/${name}/dist-packages`,
          '/usr/lib/python3/dist-packages',
          `${found}/site-packages`,
        ]
      : [`${environment}/lib/${name}/site-packages`];
  const sites: string[] = [];
  const added: string[] = [];
  const pthFiles: string[] = [];
  for (const site of candidates) {
    if ((await image.find(site))?.kind !== 'directory') continue;
    sites.push(site);
    for (const pth of await filesMatching('*.pth', site, image)) {
      pthFiles.push(pth);
      const pthFile = await image.findFile(pth);
      const lines =
        pthFile === undefined ? [] : (await image.text(pthFile, CONFIG_BYTES_MAX)).split('\n');
      for (const line of lines.map((each) => each.trim())) {
        if (line === '' || /^(?:#|import\s)/.test(line) || added.length >= ADDED_PATHS_MAX)
          continue;
        added.push(line.startsWith('/') ? line : `${site}/${line}`);
      }
    }
  }
  const fromEnvironment = (env.get('PYTHONPATH') ?? '')
    .split(':')
    .filter((each) => each.startsWith('/'));
  const paths = [...fromEnvironment, found, `${found}/lib-dynload`, ...sites, ...added];
  return { tag: `cpython-3${minor}`, minor, standard: found, paths, sites, pthFiles };
}

/** The directory of a venv, which has a pyvenv.cfg beside or above the interpreter's link. */
async function virtualEnvironment(path: string, image: ImageFiles): Promise<string | undefined> {
  const directory = dirname(dirname(path));
  const config = await image.findFile(`${directory}/pyvenv.cfg`);
  return config && directory;
}
