/**
 * A connection to containerd (1.6, 1.7, 2.x): the client that the other files of this room make calls with, one small
 * class for each of its services.
 *
 * containerd keeps content, images, snapshots and leases apart by namespace, which travels in a header. What is made by
 * calls that name a lease is safe from garbage collection until that lease is deleted or runs out.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { GrpcClient } from '../grpc/grpc-client.js';

/** containerd answers from its database; what takes longer has a limit of its own. */
const TIMEOUT_MS = 30_000;

/** containerd's own rule for names: it refuses others, and not all of them fit into a header. */
const NAMESPACE = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
const NAMESPACE_LENGTH_MAX = 76;

/**
 * Connects with the first call; close() it.
 *
 * @throws {ObdError} `InvalidArgument` for what is no namespace, or a path too long for a socket.
 */
export function connectContainerd(socketPath: string, namespace: string): GrpcClient {
  if (!NAMESPACE.test(namespace) || namespace.length > NAMESPACE_LENGTH_MAX) {
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `${JSON.stringify(namespace.slice(0, 100))} is no namespace of containerd: use letters and digits, joined by ".", "_" or "-", ${NAMESPACE_LENGTH_MAX} characters at most`,
    );
  }
  const headers = { 'containerd-namespace': namespace };
  return new GrpcClient(socketPath, { peer: 'containerd', timeoutMs: TIMEOUT_MS, headers });
}

/** The same connection, working under a lease. */
export function underLease(client: GrpcClient, leaseId: string): GrpcClient {
  return client.with({ headers: { 'containerd-lease': leaseId } });
}
