/**
 * Passes a blob's bytes through and checks them against their descriptor.
 *
 * The first byte beyond the descriptor's size ends the stream with an error, so an endless source is not read for ever.
 * The last piece is yielded before the digest of the whole is known: only the end of the iteration proves the bytes.
 */
import { createHash } from 'node:crypto';
import { ErrorCodes, ObdError } from '../errors.js';
import type { Descriptor } from '../oci/manifest.js';

/**
 * @param label - The whole blob's name, for messages.
 * @throws {ObdError} `Corrupt` if the pieces contradict the descriptor.
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
      throw mismatch(label, descriptor, `it has more than the ${descriptor.size} bytes promised`);
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

/** As verifiedBlob(), for bytes in memory. */
export function mismatch(label: string, { digest }: Descriptor, problem: string): ObdError {
  return new ObdError(ErrorCodes.Corrupt, `Cannot use ${label}: ${problem}`, { digest });
}
