/**
 * Layers as versions 1 and 2 of the schema recorded them, in a vocabulary of their own instead of the image config's.
 * Read only to migrate them.
 */
import * as z from 'zod';
import type { Layer } from './snapshot.js';

const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/);

const earlierLayer = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('files'), announcesTrace: z.literal(true).optional() }),
  z.strictObject({
    type: z.literal('remote'),
    digest,
    sizeBytes: z.int().positive(),
    repoBlobUrl: z.url(),
    fileSystem: z.string(),
  }),
  /** Unpacked as `fs/overlaybd.commit`. */
  z.strictObject({ type: z.literal('local'), fileSystem: z.string() }),
  z.strictObject({ type: z.literal('trace') }),
  z.strictObject({ type: z.literal('download'), fileSystem: z.string() }),
]);

export type EarlierLayer = z.infer<typeof earlierLayer>;

/** @returns undefined for a text that is no record of these versions. */
export function parseEarlierLayer(text: string): EarlierLayer | undefined {
  try {
    return earlierLayer.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** Versions 1 and 2 knew overlaybd's layers alone, and dropped what identifies an unpacked layer or a trace. */
export function presentLayer(earlier: EarlierLayer): Layer {
  const trace = { lower: { kind: 'overlaybd-trace' }, fileSystem: '' };
  switch (earlier.type) {
    case 'files':
      return { type: 'files', ...(earlier.announcesTrace === true ? { announces: trace } : {}) };
    case 'remote': {
      const { digest, sizeBytes: size, repoBlobUrl, fileSystem } = earlier;
      return { type: 'blocks', lower: { digest, size, repoBlobUrl }, fileSystem };
    }
    case 'local': {
      const { fileSystem } = earlier;
      return { type: 'blocks', lower: {}, fileSystem, file: 'overlaybd.commit' };
    }
    case 'trace':
      return { type: 'trace', ...trace };
    case 'download':
      return { type: 'download', lower: {}, fileSystem: earlier.fileSystem };
  }
}
