/** A program as the image will start it: the input of every rule. */
import type { ImageFile, ImageFiles } from './image-files.js';
import type { Tier } from './prediction.js';

export interface Program {
  /** The file that the kernel executes. */
  readonly file: ImageFile;
  /** As the caller named it, absolute; its symlinks may choose what it does, as those of busybox. */
  readonly path: string;
  /** As the program gets it: `argv[0]` first. */
  readonly argv: readonly string[];
  readonly env: ReadonlyMap<string, string>;
  /** Absolute. */
  readonly cwd: string;
  /** How many programs lead to it; 0 for the image's entry point. */
  readonly depth: number;
  /** 1, or 2 for a command that a script may skip: nothing that it reads is more certain. */
  readonly tier: Tier;
}

/** The default of execvp() and the shells, without a PATH. */
const PATH_DEFAULT = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The last part of the path by which it was started, which tells programs of one file apart. */
export function nameOf({ path }: Pick<Program, 'path'>): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** A path in the working directory of a program, or an absolute one. */
export function absolutePath(path: string, cwd: string): string {
  return path.startsWith('/') ? path : `${cwd === '/' ? '' : cwd}/${path.replace(/^(\.\/)+/, '')}`;
}

/** Where a command of a program is looked for, in order: by PATH if it has no slash. */
export function searchedPaths(
  command: string,
  { env, cwd }: Pick<Program, 'env' | 'cwd'>,
): readonly string[] {
  const directories = (env.get('PATH') ?? PATH_DEFAULT).split(':').map((path) => path || '.');
  const paths = command.includes('/') ? [command] : directories.map((path) => `${path}/${command}`);
  return paths.map((path) => absolutePath(path, cwd));
}

/** The file that a command of a program starts. */
export async function findProgram(
  command: string,
  from: Pick<Program, 'env' | 'cwd'>,
  image: ImageFiles,
): Promise<Pick<Program, 'file' | 'path'> | undefined> {
  for (const path of searchedPaths(command, from)) {
    const file = await image.findFile(path);
    if (file?.isExecutable === true) return { file, path };
  }
  return undefined;
}
