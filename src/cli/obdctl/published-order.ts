/** The published load order of a start, into which obd-blockd merges a new one. */
import { ErrorCodes, hasCode, messageOf, ObdError } from '../../errors.js';
import { DOCUMENT_BYTES_MAX, type LoadOrder, parseLoadOrder } from '../../load-order/load-order.js';
import {
  LOAD_ORDER_ANNOTATION,
  type NamedBlob,
  parseNamedBlob,
} from '../../load-order/load-order-annotations.js';
import { type OrderWish, sameStart } from '../../load-order/select-order.js';
import { type ImageSource, readSmallBlob } from '../../oci/image-store.js';
import type { ReferrerDescriptor } from '../../oci/referrer.js';

/** @throws {ObdError} as parseLoadOrder(); what the source throws. */
export async function readLoadOrder(
  { digest, sizeBytes }: NamedBlob,
  source: ImageSource,
): Promise<LoadOrder> {
  const descriptor = { mediaType: '', digest, size: sizeBytes };
  return parseLoadOrder(await readSmallBlob(source, descriptor, DOCUMENT_BYTES_MAX), digest);
}

/**
 * Checks before a start that its order can be merged into the published one. A damaged or missing document is replaced.
 *
 * @param published - The load orders of the image.
 * @throws {ObdError} `Unsupported` for a document of a later version; what the source throws.
 */
export async function checkMergeable(
  published: readonly ReferrerDescriptor[],
  wish: OrderWish,
  source: ImageSource,
): Promise<void> {
  const found = sameStart(published, wish);
  const named = parseNamedBlob(found?.annotations[LOAD_ORDER_ANNOTATION] ?? '');
  if (found === undefined || named === undefined || named.sizeBytes > DOCUMENT_BYTES_MAX) return;
  try {
    await readLoadOrder(named, source);
  } catch (error) {
    if (hasCode(error, ErrorCodes.Corrupt) || hasCode(error, ErrorCodes.NotFound)) return;
    if (!hasCode(error, ErrorCodes.Unsupported)) throw error;
    const message = `Cannot record a start of ${source.label}: ${messageOf(error)}; update obd-ts, or use --no-publish or another --name`;
    throw new ObdError(ErrorCodes.Unsupported, message, { digest: found.digest }, error);
  }
}
