/** containerd's diff service: unpacks a layer of the content store onto a snapshot's mounts. */
import { ErrorCodes, ObdError } from '../errors.js';
import type { DiffDefinition } from '../grpc/gen/containerd/services/diff/v1/Diff.js';
import type { Mount__Output } from '../grpc/gen/containerd/types/Mount.js';
import type { GrpcClient } from '../grpc/grpc-client.js';
import { loadService } from '../grpc/proto.js';
import type { ImageTarget } from './image-records.js';

const methods = loadService<DiffDefinition>(
  'containerd/services/diff/v1/diff.proto',
  'containerd.services.diff.v1.Diff',
);

/** For layers of many gigabytes on slow disks. */
const TIMEOUT_MS = 30 * 60_000;

/** @throws {ObdError} `Corrupt` if the layer, uncompressed, does not have the digest that the image's config states. */
export async function unpackLayer(
  client: GrpcClient,
  layer: ImageTarget,
  mounts: readonly Mount__Output[],
  diffId: string,
): Promise<void> {
  const { mediaType, digest, size } = layer;
  const request = { diff: { mediaType, digest, size }, mounts: [...mounts] };
  const { applied } = await client.call(methods.Apply, request, { timeoutMs: TIMEOUT_MS });
  if (applied?.digest === diffId) return;
  throw new ObdError(
    ErrorCodes.Corrupt,
    `Cannot use layer ${digest}: uncompressed it is ${applied?.digest}, and the config says ${diffId}`,
    { digest },
  );
}
