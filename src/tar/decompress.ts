/**
 * Decompresses a layer blob to its tar: gzip (any number of members), zstd (any number of frames) or plain.
 *
 * The first bytes decide the format; media types are often wrong (a `+gzip` layer that is plain tar is common) and the
 * magic numbers of gzip (RFC 1952 2.3.1) and zstd (RFC 8878 3.1.1) cannot begin a tar. Memory stays at a few pieces for
 * any expansion of the input: gzip through zlib's stream, which obeys back-pressure; zstd through the streaming call of
 * the binding, because zstd-napi's own stream pushes the whole expansion of one input piece.
 */
import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import zstd from 'zstd-napi/binding.js';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';

/** Output comes in pieces of this size: large enough that a promise per piece does not show. */
const PIECE_BYTES = 256 * 1024;
const MAGIC_BYTES = 6;

/**
 * Yields the uncompressed bytes. A piece is valid until the next is requested.
 *
 * @param label - The blob's name in an error message.
 * @throws {ObdError} `Corrupt` for damaged or truncated data, `Unsupported` for bzip2 and xz; errors of the source.
 */
export async function* decompress(
  source: AsyncIterable<Uint8Array>,
  label: string,
): AsyncGenerator<Uint8Array> {
  const pieces = source[Symbol.asyncIterator]();
  try {
    let head: Uint8Array = new Uint8Array(0);
    while (head.length < MAGIC_BYTES) {
      const next = await pieces.next();
      if (next.done === true) break;
      head = head.length === 0 ? next.value : Buffer.concat([head, next.value]);
    }
    const whole = rejoin(head, pieces);
    const format = formatOf(head);
    if (format === 'gzip') yield* gunzip(whole, label);
    else if (format === 'zstd') yield* unzstd(whole, label);
    else if (format === 'plain') yield* whole;
    else {
      throw new ObdError(
        ErrorCodes.Unsupported,
        `Cannot read ${label}: it is ${format}-compressed, and layers may be gzip, zstd or plain`,
        { path: label },
      );
    }
  } finally {
    await pieces.return?.();
  }
}

function formatOf(head: Uint8Array): string {
  const magic = Buffer.from(head.subarray(0, MAGIC_BYTES)).toString('hex');
  if (magic.startsWith('1f8b')) return 'gzip';
  if (magic.startsWith('28b52ffd') || /^5.2a4d18/.test(magic)) return 'zstd';
  if (magic.startsWith('425a68')) return 'bzip2';
  if (magic.startsWith('fd377a585a00')) return 'xz';
  return 'plain';
}

async function* rejoin(
  head: Uint8Array,
  rest: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  if (head.length > 0) yield head;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}

async function* gunzip(
  source: AsyncIterable<Uint8Array>,
  label: string,
): AsyncGenerator<Uint8Array> {
  // objectMode is off: Readable.from() then passes the pieces on as they are, bounded by their count.
  const input = Readable.from(source, { highWaterMark: 2 });
  const gunzipper = createGunzip({ chunkSize: PIECE_BYTES });
  // Errors of either side end the iteration below; the callback has nothing left to do.
  pipeline(input, gunzipper, () => {});
  try {
    yield* gunzipper;
  } catch (error) {
    throw systemCode(error)?.startsWith('Z_') === true ? damaged(label, 'gzip', error) : error;
  }
}

async function* unzstd(
  source: AsyncIterable<Uint8Array>,
  label: string,
): AsyncGenerator<Uint8Array> {
  const context = new zstd.DCtx();
  const output = new Uint8Array(PIECE_BYTES);
  let midFrame = false;
  for await (const piece of source) {
    let input = piece;
    for (let more = input.length > 0; more; ) {
      const [hint, produced, consumed] = decompressSome(context, output, input, label);
      input = input.subarray(consumed);
      midFrame = hint !== 0;
      // A full output buffer may hide more; an empty input with room to spare cannot.
      more = input.length > 0 || (produced === output.length && midFrame);
      if (produced > 0) yield output.subarray(0, produced);
    }
  }
  if (midFrame) throw damaged(label, 'zstd', undefined);
}

function decompressSome(
  context: zstd.DCtx,
  output: Uint8Array,
  input: Uint8Array,
  label: string,
): readonly [number, number, number] {
  try {
    return context.decompressStream(output, input);
  } catch (error) {
    throw damaged(label, 'zstd', error);
  }
}

function damaged(label: string, format: string, cause: unknown): ObdError {
  const found = cause === undefined ? 'it ends too early' : messageOf(cause);
  return new ObdError(
    ErrorCodes.Corrupt,
    `Cannot decompress ${label} (${format}): ${found}`,
    { path: label },
    cause,
  );
}
