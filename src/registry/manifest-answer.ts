/** Reads a registry's answer to a GET of a manifest or an index, and checks the digest that was promised. */
import { ErrorCodes, ObdError } from '../errors.js';
import { isDigest, sha256Of } from '../oci/digest.js';
import { MANIFEST_BYTES_MAX } from '../oci/manifest.js';
import type { HttpResponse } from './http-client.js';
import { isHtml } from './range-answer.js';
import { mismatch } from './verified-blob.js';

export interface ManifestBytes {
  readonly bytes: Uint8Array;
  /** As served; undefined if the registry did not say. */
  readonly mediaType: string | undefined;
}

/**
 * @param digest - Undefined takes the digest that the answer states, if it does.
 * @throws {ObdError} `Corrupt` for other bytes than promised, `Registry` for a page of HTML; as HttpResponse.readAll().
 */
export async function readManifest(
  response: HttpResponse,
  digest: string | undefined,
  label: string,
): Promise<ManifestBytes> {
  if (isHtml(response)) {
    response.cutOff();
    const problem = `${response.url.host} sent a page of HTML in place of it`;
    throw new ObdError(ErrorCodes.Registry, `${response.doing}: ${problem}`);
  }
  const bytes = await response.readAll(MANIFEST_BYTES_MAX);
  const promised = digest ?? response.header('docker-content-digest');
  const found = sha256Of(bytes);
  if (promised !== undefined && isDigest(promised) && promised !== found) {
    const descriptor = { mediaType: '', digest: promised, size: bytes.length };
    throw mismatch(label, descriptor, `its digest is ${found}`);
  }
  const mediaType = response.header('content-type')?.split(';', 1)[0]?.trim();
  return { bytes, mediaType };
}
