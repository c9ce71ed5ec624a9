/** The identity of an image's layers: diff IDs in its config, chain IDs computed from them. */
import { chainIdOn } from './chain-id.js';

/** Chain ID of each layer, bottom first. */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) chain.push(chainIdOn(chain.at(-1) ?? '', diffId));
  return chain;
}

/**
 * The config with other diff IDs: all other keys, known or not, keep their values and order.
 *
 * @param config - A parsed image config.
 */
export function withDiffIds(
  config: Readonly<Record<string, unknown>>,
  diffIds: readonly string[],
): Buffer {
  const rootfs = { type: 'layers', diff_ids: diffIds };
  return Buffer.from(JSON.stringify({ ...config, rootfs }));
}
