/**
 * The description of one device that overlaybd calls config.v1.json: which layers, from where.
 *
 * The reader tolerates unknown keys, as overlaybd does, and refuses keys of the wrong type, naming file and
 * key. It refuses unsupported keys if ignoring them would show wrong bytes (a writable upper), and ignores
 * those that only cost speed (`recordTracePath`).
 *
 * Writing replaces the file atomically.
 */
import { constants, open } from 'node:fs/promises';
import * as z from 'zod';
import { ErrorCodes, isDiskFull, messageOf, ObdError, systemCode } from '../errors.js';
import { replaceFile } from '../io/replace-file.js';
import { blobUrl, lowerSchema, optionalPath } from '../layers/lower-layer.js';
import { LAYERS_MAX } from '../lsmt/layer-stack.js';

/** 255 layers with four paths of 4096 bytes each are 4 MiB. */
const CONFIG_BYTES_MAX = 4 << 20;

const configSchema = z.object({
  /** `https://host[:port]/v2/<repository>/blobs`; empty if all layers are local. */
  repoBlobUrl: blobUrl.default(''),
  /** Bottom first. */
  lowers: z.array(lowerSchema).max(LAYERS_MAX, `at most ${LAYERS_MAX} layers`).default([]),
  upper: z
    .object({
      index: optionalPath,
      data: optionalPath,
      target: optionalPath,
      gzipIndex: optionalPath,
    })
    .optional(),
  /** Where overlaybd writes the result of opening the image. */
  resultFile: optionalPath,
  /** The topmost lower holds a trace and no blocks: src/image/image-trace.ts. */
  accelerationLayer: z.boolean().optional(),
  /** Whether the rest of the image is fetched in the background: overrides the daemon's setting. Other keys are ignored. */
  download: z.object({ enable: z.boolean().optional() }).optional(),
});

export type ImageConfig = z.infer<typeof configSchema>;

/** @throws {ObdError} `NotFound`, `InvalidArgument` naming file and key, `Io`. */
export async function readImageConfig(path: string): Promise<ImageConfig> {
  const text = await readText(path);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalid(path, `it is not JSON: ${messageOf(error)}`);
  }
  const result = configSchema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const key = (issue?.path ?? [])
    .map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`))
    .join('')
    .replace(/^\./, '');
  throw invalid(path, `${key === '' ? 'the whole' : `"${key}"`}: ${issue?.message ?? 'invalid'}`);
}

/**
 * Writes the config compactly, readable only by its owner. Omits empty values, as overlaybd's snapshotter does.
 *
 * @throws {ObdError} `NoSpace`, `Io`; the file is then unchanged.
 */
export async function writeImageConfig(path: string, config: ImageConfig): Promise<void> {
  const { repoBlobUrl, lowers, upper, resultFile, accelerationLayer, download } = config;
  const value = {
    repoBlobUrl,
    lowers: lowers.map(withoutEmpty),
    upper: withoutEmpty(upper ?? {}),
    resultFile: resultFile ?? '',
    ...withoutEmpty({ accelerationLayer, download }),
  };
  try {
    await replaceFile(path, 0o600, (file) => file.writeFile(JSON.stringify(value)));
  } catch (error) {
    const full = isDiskFull(error);
    const message = `Cannot write the image config "${path}": ${messageOf(error)}`;
    throw new ObdError(full ? ErrorCodes.NoSpace : ErrorCodes.Io, message, { path }, error);
  }
}

function withoutEmpty(object: object): object {
  const kept = Object.entries(object).filter(([, value]) => Boolean(value));
  return Object.fromEntries(kept);
}

async function readText(path: string): Promise<string> {
  try {
    // Without O_NONBLOCK, opening a pipe waits for a writer; it does not affect a file.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = await file.stat();
      if (!stat.isFile()) throw invalid(path, 'it is not a regular file');
      if (stat.size > CONFIG_BYTES_MAX) {
        throw invalid(path, `it has ${stat.size} bytes, the limit is ${CONFIG_BYTES_MAX}`);
      }
      return await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof ObdError) throw error;
    const code = systemCode(error) === 'ENOENT' ? ErrorCodes.NotFound : ErrorCodes.Io;
    const message = `Cannot read the image config "${path}": ${messageOf(error)}`;
    throw new ObdError(code, message, { path }, error);
  }
}

function invalid(path: string, problem: string): ObdError {
  return new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot use the image config "${path}": ${problem}`,
    {
      path,
    },
  );
}
