/**
 * The identity of an image's layers: diff IDs in its config, chain IDs computed from them.
 *
 * OCI image config, "Layer ChainID": chain(0) = diff(0), chain(n) = sha256(chain(n - 1) + " " + diff(n)).
 */
import { createHash } from 'node:crypto';

/** Chain ID of each layer, bottom first. */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(
      below === undefined
        ? diffId
        : `sha256:${createHash('sha256').update(`${below} ${diffId}`).digest('hex')}`,
    );
  }
  return chain;
}

/**
 * The config with other diff IDs: all else, known or not, stays as it is and where it is.
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
