/** The command that a container of an image runs: the image's config, and what a user says instead. */
import * as z from 'zod';
import { ErrorCodes, ObdError } from '../errors.js';

/** The part of an OCI image config that says how to start it. Docker writes null for what is not set. */
const startSchema = z.object({
  config: z
    .object({
      Entrypoint: z.array(z.string()).nullish(),
      Cmd: z.array(z.string()).nullish(),
      Env: z.array(z.string()).nullish(),
      WorkingDir: z.string().nullish(),
    })
    .nullish(),
});

export interface StartCommand {
  readonly argv: readonly string[];
  readonly env: ReadonlyMap<string, string>;
  /** Absolute. */
  readonly cwd: string;
}

/** Each replaces what the image says, if it is set. */
export interface StartOptions {
  /** Also drops the image's Cmd, as with all container engines. */
  readonly entrypoint?: readonly string[] | undefined;
  readonly args?: readonly string[] | undefined;
  /** `NAME=VALUE`, added to those of the image. */
  readonly env?: readonly string[] | undefined;
  readonly cwd?: string | undefined;
}

/**
 * @param config - A parsed OCI image config.
 * @throws {ObdError} `InvalidArgument` if neither the image nor the options name a command, `Corrupt` for a config of the
 *   wrong form.
 */
export function startCommand(config: unknown, options: StartOptions): StartCommand {
  const { Entrypoint, Cmd, Env, WorkingDir } = startOf(config);
  const entrypoint = options.entrypoint ?? Entrypoint ?? [];
  const args = options.args ?? (options.entrypoint === undefined ? (Cmd ?? []) : []);
  const argv = [...entrypoint, ...args];
  if (argv.length === 0) {
    const remedy = 'name a command with --entrypoint or --args';
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `Cannot tell what the image runs: it has neither Entrypoint nor Cmd; ${remedy}`,
    );
  }
  const cwd = options.cwd ?? (WorkingDir || '/');
  return {
    argv,
    env: environment([...(Env ?? []), ...(options.env ?? [])]),
    cwd: `/${cwd}`.replace(/^\/+/, '/'),
  };
}

/**
 * The command line that an image's config names; empty if it names none.
 *
 * @throws {ObdError} `Corrupt` for a config of the wrong form.
 */
export function imageArgs(config: unknown): readonly string[] {
  const { Entrypoint, Cmd } = startOf(config);
  return [...(Entrypoint ?? []), ...(Cmd ?? [])];
}

function startOf(config: unknown) {
  const parsed = startSchema.safeParse(config);
  if (parsed.success) return parsed.data.config ?? {};
  const { path, message } = parsed.error.issues[0]!;
  const problem = `"${path.join('.')}": ${message}`;
  throw new ObdError(ErrorCodes.Corrupt, `Cannot use the image's config: ${problem}`);
}

function environment(assignments: readonly string[]): Map<string, string> {
  return new Map(
    assignments.map((text) => {
      const equals = text.indexOf('=');
      return equals === -1 ? [text, ''] : [text.slice(0, equals), text.slice(equals + 1)];
    }),
  );
}
