/**
 * Content digests, `sha256:` and 64 lower-case hexadecimal digits (OCI image spec, "Digests").
 *
 * Digests become file names and parts of URLs, so isDigest() must accept a string before it counts as one: an accepted
 * string holds no slash, no dot and no query. sha512, which the specification registers too, is refused as unsupported:
 * no registry or tool in use writes it, and overlaybd's formats have no room for it.
 */
import { createHash } from 'node:crypto';
import { ErrorCodes, ObdError } from '../errors.js';

const SHA256 = /^sha256:[0-9a-f]{64}$/;
const REGISTERED = /^sha512:[0-9a-f]{128}$/;

export function isDigest(text: string): boolean {
  return SHA256.test(text);
}

/** Returns why `text` is not a digest that this build can use; undefined if it is one. */
export function digestProblem(
  text: string,
): { readonly unsupported: boolean; readonly problem: string } | undefined {
  if (isDigest(text)) return undefined;
  if (REGISTERED.test(text)) {
    return { unsupported: true, problem: 'sha512 digests are not supported, only sha256' };
  }
  const found = JSON.stringify(text.slice(0, 100));
  return { unsupported: false, problem: `${found} is not sha256: and 64 hexadecimal digits` };
}

/**
 * Throws unless `digest` is a digest. `thing` names its purpose in the message.
 *
 * @throws {ObdError} `Unsupported` for sha512, `InvalidArgument` for any other text.
 */
export function checkDigest(digest: string, thing: string): void {
  const found = digestProblem(digest);
  if (found === undefined) return;
  const code = found.unsupported ? ErrorCodes.Unsupported : ErrorCodes.InvalidArgument;
  throw new ObdError(code, `Cannot use ${thing}: ${found.problem}`);
}

export function sha256Of(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
