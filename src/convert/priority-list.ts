/** The list of files that a start reads, as a user writes it: an absolute path per line, in the order of their use. */
import { open } from 'node:fs/promises';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';

const LIST_BYTES_MAX = 1 << 20;
/** The largest recorded start has 1,400 files. */
const PATHS_MAX = 10_000;

/** @throws {ObdError} `InvalidArgument` for a file that cannot be read, is too long, or names a relative path. */
export async function readPriorityList(path: string): Promise<readonly string[]> {
  const refuse = (problem: string) =>
    new ObdError(ErrorCodes.InvalidArgument, `Cannot use priority list "${path}": ${problem}`, {
      path,
    });
  const text = await readStart(path).catch((error: unknown) => {
    throw refuse(messageOf(error));
  });
  if (text.length > LIST_BYTES_MAX) throw refuse(`it has more than ${LIST_BYTES_MAX} bytes`);
  const lines = text
    .toString()
    .split('\n')
    .map((line) => line.replace(/\r$/, ''));
  const wrong = lines.findIndex((line) => line !== '' && !line.startsWith('/'));
  if (wrong !== -1) throw refuse(`line ${wrong + 1} is no absolute path`);
  const paths = [...new Set(lines.filter((line) => line !== ''))];
  if (paths.length === 0) throw refuse('it names no file');
  if (paths.length <= PATHS_MAX) return paths;
  throw refuse(`it names ${paths.length} files, and the limit is ${PATHS_MAX}`);
}

/** One byte more than the limit, if there are so many; the list may be a pipe. */
async function readStart(path: string): Promise<Buffer> {
  const file = await open(path);
  try {
    const pieces: Buffer[] = [];
    let bytes = 0;
    for await (const piece of file.createReadStream({ autoClose: false })) {
      pieces.push(piece as Buffer);
      bytes += (piece as Buffer).length;
      if (bytes > LIST_BYTES_MAX) break;
    }
    return Buffer.concat(pieces);
  } finally {
    await file.close();
  }
}
