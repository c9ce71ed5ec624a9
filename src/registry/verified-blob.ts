/**
 * A blob's bytes on their way through, checked against the descriptor that promised them.
 *
 * Bytes beyond the promised size end the stream as they come, so a source that never ends is not read
 * for ever. A last piece is handed on before the digest of the whole is known: only the end of the
 * iteration says that the bytes were right.
 */
import { createHash } from 'node:crypto';
import { ErrorCodes, ObdError } from '../errors.js';
import type { Descriptor } from '../oci/manifest.js';

/**
 * @param label - Of the whole blob, for messages.
 * @throws {ObdError} `Corrupt` if the pieces are not what the descriptor promises.
 */
export async function* verifiedBlob(
  pieces: AsyncIterable<Uint8Array>,
  descriptor: Descriptor,
  label: string,
): AsyncGenerator<Uint8Array, void, undefined> {
  const hash = createHash('sha256');
  let received = 0;
  for await (const piece of pieces) {
    received += piece.length;
    if (received > descriptor.size) {
      throw mismatch(label, descriptor, `it goes on after the ${descriptor.size} bytes promised`);
    }
    hash.update(piece);
    yield piece;
  }
  if (received < descriptor.size) {
    throw mismatch(label, descriptor, `it ends after ${received} of ${descriptor.size} bytes`);
  }
  const found = `sha256:${hash.digest('hex')}`;
  if (found !== descriptor.digest) {
    throw mismatch(label, descriptor, `its digest is ${found}, not ${descriptor.digest}`);
  }
}

/** As verifiedBlob(), for bytes that are all here. */
export function mismatch(label: string, { digest }: Descriptor, problem: string): ObdError {
  return new ObdError(ErrorCodes.Corrupt, `Cannot use ${label}: ${problem}`, { digest });
}
