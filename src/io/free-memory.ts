/** Gives large array buffers back to the system when their owner closes, instead of when a collector runs. */

/** ES2024; this project compiles against ES2023. */
interface Transferable {
  transfer(bytes: number): ArrayBuffer;
}

/**
 * Frees the memory of `buffer`, whose views have no elements from then on. An idle thread collects rarely, so hundreds of
 * MiB of a closed image would otherwise stay.
 */
export function freeMemory(buffer: ArrayBufferLike): void {
  if (buffer instanceof ArrayBuffer) (buffer as ArrayBuffer & Transferable).transfer(0);
}
