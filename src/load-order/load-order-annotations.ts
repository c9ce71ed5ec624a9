/** The annotations by which load orders are found and chosen: docs/formats/load-order.md, "Where it is". */
import { STARTS_MAX } from './load-order.js';

/** `sha256:...@SIZE` of the document's blob. */
export const LOAD_ORDER_ANNOTATION = 'dev.obd-ts.load-order';
/** `recorded`, `predicted` or `list`. */
export const KIND_ANNOTATION = 'dev.obd-ts.load-order.kind';
/** A free name, which a label or an annotation of a container can ask for. */
export const NAME_ANNOTATION = 'dev.obd-ts.load-order.name';
/** The command line that it is of, as text or as the digest of that; see commandText(). */
export const COMMAND_ANNOTATION = 'dev.obd-ts.load-order.command';
/** `sha256:...@SIZE` of the hot blob (docs/formats/hot-blob.md); absent if the artifact has none. */
export const HOT_PAGES_ANNOTATION = 'dev.obd-ts.hot-pages';
/** How many starts were merged. */
export const STARTS_ANNOTATION = 'dev.obd-ts.load-order.starts';
/** The read-ahead with which a recorded one was recorded, in bytes. */
export const READ_AHEAD_ANNOTATION = 'dev.obd-ts.load-order.read-ahead';

/** A blob that an annotation names, as `sha256:...@SIZE`. */
export interface NamedBlob {
  readonly digest: string;
  readonly sizeBytes: number;
}

const NAMED_BLOB = /^(sha256:[0-9a-f]{64})@([1-9][0-9]{0,11})$/;

/** Parses STARTS_ANNOTATION, which anyone who may push can set. Undefined for no count of starts that a document can have. */
export function parseStarts(text = ''): number | undefined {
  const starts = /^[0-9]{1,4}$/.test(text) ? Number(text) : Number.NaN;
  return starts <= STARTS_MAX ? starts : undefined;
}

/** Parses `sha256:...@SIZE`. Undefined for anything else. */
export function parseNamedBlob(text: string): NamedBlob | undefined {
  const [, digest, size] = NAMED_BLOB.exec(text) ?? [];
  return digest === undefined ? undefined : { digest, sizeBytes: Number(size) };
}
