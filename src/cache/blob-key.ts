/**
 * The key of a blob in the cache. Sources with the same key have the same bytes, and the cache serves each of them what
 * another one sent.
 *
 * A key is also the name of the blob's file, so the cache accepts no key before checkKey() has seen it: its parts hold
 * no slash, and do not begin with a dot.
 */
import { ErrorCodes, ObdError } from '../errors.js';

const ORIGIN = /^[A-Za-z0-9[][A-Za-z0-9.:\]-]{0,254}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

export interface BlobKey {
  /**
   * The party that answers for the bytes, in the form of a host or `host:port`. Origins share no bytes: a part of a
   * blob does not prove its digest.
   */
  readonly origin: string;
  /** `sha256:` and 64 hexadecimal digits: of the content, or of a text that says how the content is derived. */
  readonly digest: string;
  readonly sizeBytes: number;
}

export function isOrigin(text: string): boolean {
  return ORIGIN.test(text);
}

/**
 * @param label - Of the source, for messages.
 * @throws {ObdError} `InvalidArgument` unless both names can be names of files.
 */
export function checkKey({ origin, digest }: BlobKey, label: string): void {
  if (isOrigin(origin) && DIGEST.test(digest)) return;
  const problem = `its key "${origin}" "${digest}" is not a host and a sha256 digest`;
  throw new ObdError(ErrorCodes.InvalidArgument, `Cannot cache ${label}: ${problem}`);
}

/** The file name of a blob with that digest. */
export function nameOfDigest(digest: string): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** Whether nameOfDigest() returns `name` for some digest. */
export function isDigestName(name: string): boolean {
  return DIGEST.test(`sha256:${name}`);
}

/** The key as one string; blobs of different sizes share it. */
export function keyText({ origin, digest }: Pick<BlobKey, 'origin' | 'digest'>): string {
  return `${origin}/${digest}`;
}
