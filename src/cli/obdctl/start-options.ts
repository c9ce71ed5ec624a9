/** Options that replace parts of the command line with which an image starts. */
import { ErrorCodes, ObdError } from '../../errors.js';
import type { StartOptions } from '../../predict/start-command.js';
import { wordsOf } from './command-words.js';

export const startOptions = {
  entrypoint: {
    type: 'string',
    requiresArg: true,
    describe: "Instead of the image's Entrypoint and Cmd: a JSON array, or one word",
  },
  args: {
    type: 'string',
    requiresArg: true,
    describe: "Instead of the image's Cmd: a JSON array, or one word",
  },
  env: {
    type: 'string',
    array: true,
    // Else it would take the image, too.
    nargs: 1,
    default: [] as string[],
    describe:
      'NAME=VALUE, or the NAME of a variable of this shell, added to those of the image; may be repeated',
  },
  cwd: {
    type: 'string',
    requiresArg: true,
    describe: "Instead of the image's WorkingDir: an absolute path",
  },
} as const;

interface GivenStart {
  readonly entrypoint: string | undefined;
  readonly args: string | undefined;
  readonly env: readonly string[];
  readonly cwd: string | undefined;
}

/**
 * Checks the options and parses them.
 *
 * @param host - The environment that gives `--env NAME` its value, as with docker, podman and nerdctl.
 * @throws {ObdError} `InvalidArgument` that names the value.
 */
export function startOf(
  { entrypoint, args, env, cwd }: GivenStart,
  host: NodeJS.ProcessEnv = process.env,
): StartOptions {
  if (cwd !== undefined && !cwd.startsWith('/')) {
    throw unusable(`--cwd ${cwd}`, `it is no absolute path of the image; write --cwd /${cwd}`);
  }
  return {
    entrypoint: wordsOf('--entrypoint', entrypoint),
    args: wordsOf('--args', args),
    env: env.map((each) => assignment(each, host)),
    cwd,
  };
}

function assignment(text: string, host: NodeJS.ProcessEnv): string {
  const equals = text.indexOf('=');
  if (equals === 0 || text === '') throw unusable(`--env ${text}`, 'write it as NAME=VALUE');
  if (equals > 0) return text;
  const value = host[text];
  if (value !== undefined) return `${text}=${value}`;
  throw unusable(
    `--env ${text}`,
    `this shell has no such variable; export it, or write --env ${text}=VALUE`,
  );
}

function unusable(option: string, why: string): ObdError {
  return new ObdError(ErrorCodes.InvalidArgument, `Cannot use ${option}: ${why}`);
}
