/** Which files the peers that prefetch by a list are told of: those that the reference start reads. */
import type { Making } from '../image-store.js';
import { referenceOf } from '../reference.js';
import { WORKLOADS } from '../workloads.js';

/** `dense` shares its image with `python`, and would replace what was made for it. */
export const LISTED_IMAGES = WORKLOADS.map(({ name }) => name).filter((name) => name !== 'dense');

export async function listedFiles({ workload }: Making): Promise<readonly string[]> {
  return (await referenceOf(workload)).files;
}
