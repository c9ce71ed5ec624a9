/**
 * The artifact of a load order, and perhaps its hot blob, of an image (docs/formats/load-order.md). Its annotations
 * name both blobs, so a node reads only the list of referrers before it fetches them.
 */
import { sha256Of } from '../oci/digest.js';
import { encodeLoadOrder, type LoadOrder } from './load-order.js';
import {
  COMMAND_ANNOTATION,
  HOT_PAGES_ANNOTATION,
  KIND_ANNOTATION,
  LOAD_ORDER_ANNOTATION,
  NAME_ANNOTATION,
  READ_AHEAD_ANNOTATION,
  STARTS_ANNOTATION,
} from './load-order-annotations.js';

export const LOAD_ORDER_ARTIFACT = 'application/vnd.obd-ts.load-order.v1';
const LOAD_ORDER_TYPE = 'application/vnd.obd-ts.load-order.v1+json';
const HOT_PAGES_TYPE = 'application/vnd.obd-ts.hot-pages.v1';

/** A hot blob in a file. */
export interface HotBlobFile {
  readonly path: string;
  readonly digest: string;
  readonly sizeBytes: number;
}

/** @param as - Of which command line it is, and its name; both may be empty. */
export function orderArtifact(
  order: LoadOrder,
  hot: HotBlobFile | undefined,
  { command, name }: { readonly command: string; readonly name: string },
) {
  const bytes = encodeLoadOrder(order);
  const digest = sha256Of(bytes);
  const descriptor = { mediaType: LOAD_ORDER_TYPE, digest, size: bytes.length };
  const blobs: { descriptor: typeof descriptor; content: Uint8Array | string }[] = [
    { descriptor, content: bytes },
  ];
  const annotations: Record<string, string> = {
    [LOAD_ORDER_ANNOTATION]: `${digest}@${bytes.length}`,
    [KIND_ANNOTATION]: order.kind,
    [STARTS_ANNOTATION]: String(order.starts),
  };
  if (order.kind === 'recorded') annotations[READ_AHEAD_ANNOTATION] = String(order.readAheadBytes);
  if (command !== '') annotations[COMMAND_ANNOTATION] = command;
  if (name !== '') annotations[NAME_ANNOTATION] = name;
  if (hot !== undefined) {
    annotations[HOT_PAGES_ANNOTATION] = `${hot.digest}@${hot.sizeBytes}`;
    const { digest: hotDigest, sizeBytes: size } = hot;
    blobs.push({
      descriptor: { mediaType: HOT_PAGES_TYPE, digest: hotDigest, size },
      content: hot.path,
    });
  }
  return { artifactType: LOAD_ORDER_ARTIFACT, annotations, blobs };
}
