/** An image that a client pulls, or that a device serves: what its manifest says of it. */
import { createHash } from 'node:crypto';
import { ErrorCodes, ObdError } from '../errors.js';
import type { ExpectRequest__Output } from '../grpc/gen/obd/blockd/v1/ExpectRequest.js';
import { type NamedBlob, parseNamedBlob } from '../load-order/load-order-annotations.js';
import type { OrderWish } from '../load-order/select-order.js';
import { isDigest } from '../oci/digest.js';

export interface ExpectedLayer {
  readonly digest: string;
  /** Bytes; 0 if not known. */
  readonly sizeBytes: number;
  /** The root of its hash tree, `sha256:...`; undefined for a layer without one. */
  readonly root: string | undefined;
}

export interface ExpectedImage {
  readonly host: string;
  readonly repository: string;
  /** The image's manifest, of one platform; undefined if it is not known. */
  readonly manifest: NamedBlob | undefined;
  readonly manifestType: string;
  /** The load order that the manifest names in its annotations. */
  readonly loadOrder: NamedBlob | undefined;
  /** By which its load order is chosen. */
  readonly wish: OrderWish;
  /** Bottom first. */
  readonly layers: readonly ExpectedLayer[];
}

/** The same for images with the same layers and the same hash trees. */
export function startKey(layers: readonly Pick<ExpectedLayer, 'digest' | 'root'>[]): string {
  const names = layers.map(({ digest, root = '' }) => `${digest}@${root}`).join(' ');
  return createHash('sha256').update(names).digest('hex');
}

const LAYERS_MAX = 255;
/** The client's, and the image's. */
const NAMES_MAX = 2;
const NAME_CHARACTERS_MAX = 256;

/** @throws {ObdError} `InvalidArgument` for names, digests or counts that are none. */
export function expectedImageOf(request: ExpectRequest__Output): ExpectedImage {
  const { host, repository, manifest, manifestType, loadOrder } = request;
  const { command, imageCommand } = request;
  // A longer one names nothing, and is no reason to know less of the image.
  const names = request.orderNames.filter(({ length }) => length <= NAME_CHARACTERS_MAX);
  const layers = request.layers.map(({ digest, sizeBytes, root }) => ({
    digest,
    sizeBytes,
    root: root === '' ? undefined : root,
  }));
  const digests = layers.flatMap(({ digest, root }) => [digest, root ?? digest]);
  const isSound =
    layers.length > 0 &&
    layers.length <= LAYERS_MAX &&
    [manifest, ...digests].every(isDigest) &&
    [command, imageCommand].every((each) => each === '' || isDigest(each)) &&
    names.length <= NAMES_MAX &&
    names.every(({ length }) => length > 0);
  if (!isSound) {
    const message = `Cannot expect an image of ${JSON.stringify(`${host}/${repository}`.slice(0, 300))}: 1 to ${LAYERS_MAX} layers and the manifest are needed, each with a digest`;
    throw new ObdError(ErrorCodes.InvalidArgument, message);
  }
  return {
    host,
    repository,
    manifest: { digest: manifest, sizeBytes: request.manifestBytes },
    manifestType,
    loadOrder: parseNamedBlob(loadOrder),
    wish: { command, imageCommand, names },
    layers,
  };
}
