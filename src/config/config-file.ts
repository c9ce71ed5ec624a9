/**
 * Reads a daemon's TOML configuration, once, at start.
 *
 * Guarantees: the file was read whole, the schema has every key in it, and every value has the schema's type. An
 * unknown key is an error and not a warning, because the operator who wrote it expects an effect. Every message names
 * the file, the key and the remedy.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { parse, TomlError } from 'smol-toml';
import * as z from 'zod';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';

export interface ConfigFileOptions {
  /** Set for a default path: if the file is missing, every key has its default. */
  readonly mayBeMissing?: boolean;
}

/**
 * @param schema - Strict objects at every level, or an unknown key goes unnoticed.
 * @throws {ObdError} `InvalidArgument` for mistakes in the file, `NotFound`, `Io`.
 */
export async function readConfigFile<T>(
  path: string,
  schema: z.ZodType<T>,
  { mayBeMissing = false }: ConfigFileOptions = {},
): Promise<T> {
  const text = await readText(path, mayBeMissing);
  const checked = schema.safeParse(parseToml(path, text));
  if (checked.success) return checked.data;
  const problems = checked.error.issues.flatMap((issue) => problemsOf(issue, schema));
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot use the configuration "${path}": ${problems.join('; ')}`,
    { path },
  );
}

async function readText(path: string, mayBeMissing: boolean): Promise<string> {
  try {
    return await readRegularFile(path);
  } catch (error) {
    const missing = systemCode(error) === 'ENOENT';
    if (missing && mayBeMissing) return '';
    const code = missing ? ErrorCodes.NotFound : ErrorCodes.Io;
    const message = `Cannot read the configuration "${path}": ${messageOf(error)}`;
    throw new ObdError(code, message, { path }, error);
  }
}

/** Opening a FIFO would otherwise block until a writer opens it, and a reload with it. */
async function readRegularFile(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!(await file.stat()).isFile()) {
      throw new ObdError(ErrorCodes.Io, 'it is not a regular file', { path });
    }
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

function parseToml(path: string, text: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // Only the first line of its message; the other lines are an excerpt of the file.
    const [problem = ''] = error.message.split('\n');
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `Cannot use the configuration "${path}": line ${error.line}, column ${error.column}: ${problem}`,
      { path },
      error,
    );
  }
}

function problemsOf(issue: z.core.$ZodIssue, schema: z.ZodType): string[] {
  if (issue.code !== 'unrecognized_keys') return [`"${keyText(issue.path)}": ${issue.message}`];
  const known = knownKeys(schema, issue.path).join(', ');
  return issue.keys.map(
    (key) => `unknown key "${keyText([...issue.path, key])}": remove it, or use one of ${known}`,
  );
}

/** `registry.hosts.localhost`, with quotes where TOML needs them. */
function keyText(path: readonly PropertyKey[]): string {
  const parts = path.map(String);
  return parts.map((part) => (/^[A-Za-z0-9_-]+$/.test(part) ? part : `'${part}'`)).join('.');
}

/** The keys that the table at `path` may have. */
function knownKeys(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: unknown = schema;
  for (const key of path) {
    const table = unwrapped(at);
    at = table instanceof z.ZodObject ? table.shape[String(key)] : undefined;
  }
  const table = unwrapped(at);
  return table instanceof z.ZodObject ? Object.keys(table.shape) : [];
}

/** A schema without the defaults around it. */
function unwrapped(schema: unknown): unknown {
  let at = schema;
  while (at instanceof z.ZodDefault || at instanceof z.ZodPrefault || at instanceof z.ZodOptional) {
    at = at.def.innerType;
  }
  return at;
}
