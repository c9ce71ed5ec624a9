/**
 * Chain IDs: the identity of a layer together with all layers below it.
 *
 * OCI image config, "Layer ChainID": chain(0) = diff(0), chain(n) = sha256(chain(n - 1) + " " + diff(n)).
 */
import { sha256Of } from './digest.js';

/** @param below - Chain ID of the layer below; "" for the bottom. */
export function chainIdOn(below: string, diffId: string): string {
  return below === '' ? diffId : sha256Of(Buffer.from(`${below} ${diffId}`));
}
