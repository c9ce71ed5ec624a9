/**
 * Connects to containerd (1.6, 1.7, 2.x). The other files of this room make calls through this client, one small class
 * for each of containerd's services.
 *
 * containerd keeps content, images, snapshots and leases apart by namespace, which travels in a header. Calls may name
 * a lease: it protects the objects that they make from garbage collection until it is deleted or expires.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { GrpcClient } from '../grpc/grpc-client.js';

/** containerd answers from its database. Slower calls set their own limit. */
const TIMEOUT_MS = 30_000;

/** containerd's own rule for names. It refuses other names, and some of them do not fit into a header. */
const NAMESPACE = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
const NAMESPACE_LENGTH_MAX = 76;

/**
 * Returns a client that connects with its first call. The caller close()s it.
 *
 * @throws {ObdError} `InvalidArgument` for an invalid namespace, or a path too long for a socket.
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

/** Returns a client over the same connection whose calls name a lease. */
export function underLease(client: GrpcClient, leaseId: string): GrpcClient {
  return client.with({ headers: { 'containerd-lease': leaseId } });
}
