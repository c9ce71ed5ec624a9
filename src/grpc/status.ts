/**
 * Converts ObdErrors to gRPC statuses, and back.
 *
 * gRPC has fewer codes than we have, and no details. Trailers carry both, so a client of ours gets the ObdError that
 * our daemon threw; other clients ignore them. For other clients the table below is the interface: containerd branches
 * on ALREADY_EXISTS, NOT_FOUND, FAILED_PRECONDITION and INVALID_ARGUMENT.
 */
import { Metadata, type ServiceError, type StatusObject, status } from '@grpc/grpc-js';
import { type ErrorCode, ErrorCodes, type ErrorDetails, messageOf, ObdError } from '../errors.js';

/** Trailers of an ObdError: its code, and its details as JSON. */
const CODE_TRAILER = 'obd-error-code';
const DETAILS_TRAILER = 'obd-error-details-bin';
/** Peers limit the size of headers, some to 8 KiB in all. */
const MESSAGE_LENGTH_MAX = 2048;
const DETAILS_BYTES_MAX = 2048;

const STATUS_OF = {
  [ErrorCodes.Corrupt]: status.DATA_LOSS,
  [ErrorCodes.Unsupported]: status.UNIMPLEMENTED,
  [ErrorCodes.InvalidArgument]: status.INVALID_ARGUMENT,
  [ErrorCodes.NotFound]: status.NOT_FOUND,
  [ErrorCodes.AlreadyExists]: status.ALREADY_EXISTS,
  [ErrorCodes.FailedPrecondition]: status.FAILED_PRECONDITION,
  // Not ABORTED: containerd's garbage collection skips a snapshot in use only for FAILED_PRECONDITION.
  [ErrorCodes.Busy]: status.FAILED_PRECONDITION,
  [ErrorCodes.Unauthorized]: status.UNAUTHENTICATED,
  [ErrorCodes.Registry]: status.UNKNOWN,
  [ErrorCodes.Unavailable]: status.UNAVAILABLE,
  [ErrorCodes.NoSpace]: status.RESOURCE_EXHAUSTED,
  [ErrorCodes.Host]: status.FAILED_PRECONDITION,
  [ErrorCodes.Io]: status.INTERNAL,
} as const satisfies Record<ErrorCode, status>;

/** For peers that send no code of ours. */
const CODE_OF = {
  [status.CANCELLED]: ErrorCodes.Unavailable,
  [status.UNKNOWN]: ErrorCodes.Io,
  [status.INVALID_ARGUMENT]: ErrorCodes.InvalidArgument,
  [status.DEADLINE_EXCEEDED]: ErrorCodes.Unavailable,
  [status.NOT_FOUND]: ErrorCodes.NotFound,
  [status.ALREADY_EXISTS]: ErrorCodes.AlreadyExists,
  [status.PERMISSION_DENIED]: ErrorCodes.Unauthorized,
  [status.RESOURCE_EXHAUSTED]: ErrorCodes.NoSpace,
  [status.FAILED_PRECONDITION]: ErrorCodes.FailedPrecondition,
  [status.ABORTED]: ErrorCodes.Busy,
  [status.OUT_OF_RANGE]: ErrorCodes.InvalidArgument,
  [status.UNIMPLEMENTED]: ErrorCodes.Unsupported,
  [status.INTERNAL]: ErrorCodes.Io,
  [status.UNAVAILABLE]: ErrorCodes.Unavailable,
  [status.DATA_LOSS]: ErrorCodes.Corrupt,
  [status.UNAUTHENTICATED]: ErrorCodes.Unauthorized,
} as const satisfies Record<Exclude<status, status.OK>, ErrorCode>;

/** Returns the status for any error of a handler: INTERNAL unless it is an ObdError. */
export function statusOf(error: unknown): StatusObject {
  const metadata = new Metadata();
  if (!(error instanceof ObdError)) {
    const details = sendable(`Internal error: ${messageOf(error)}; the server's log has the rest`);
    return { code: status.INTERNAL, details, metadata };
  }
  metadata.set(CODE_TRAILER, error.code);
  const details = Buffer.from(JSON.stringify(error.details));
  if (details.length <= DETAILS_BYTES_MAX) metadata.set(DETAILS_TRAILER, details);
  return { code: STATUS_OF[error.code], details: sendable(error.message), metadata };
}

/**
 * Returns the error that a client throws for a status.
 *
 * @param call - Method and server for the message: "containerd (Snapshots/Prepare)". An ObdError from our own daemon
 *   keeps its message.
 */
export function errorOf(received: ServiceError, call: string): ObdError {
  const { code, details, metadata } = received;
  const sent = metadata?.get(CODE_TRAILER)[0];
  if (isErrorCode(sent)) {
    return new ObdError(sent, details, detailsIn(metadata.get(DETAILS_TRAILER)[0]), received);
  }
  const known = code === status.OK ? ErrorCodes.Io : (CODE_OF[code] ?? ErrorCodes.Io);
  const name = status[code] ?? `status ${code}`;
  const text = details === '' ? name : details;
  return new ObdError(known, `Cannot call ${call}: ${text}`, {}, received);
}

/** Makes text fit for a header: bounded, and without half characters, on which encoding would throw. */
function sendable(message: string): string {
  const cut =
    message.length > MESSAGE_LENGTH_MAX ? `${message.slice(0, MESSAGE_LENGTH_MAX)}...` : message;
  return Buffer.from(cut).toString();
}

function isErrorCode(sent: unknown): sent is ErrorCode {
  return typeof sent === 'string' && Object.hasOwn(STATUS_OF, sent);
}

/** Reads an untrusted trailer: keeps the details that have the right type, since they go to logs. */
function detailsIn(sent: unknown): ErrorDetails {
  if (!(sent instanceof Uint8Array)) return {};
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(sent).toString());
  } catch {
    return {};
  }
  if (typeof parsed !== 'object' || parsed === null) return {};
  const texts = ['path', 'digest', 'reference'];
  const numbers = ['offset', 'length', 'status', 'retryAfterMs'];
  const sound = Object.entries(parsed).filter(
    ([key, value]) =>
      (texts.includes(key) && typeof value === 'string') ||
      (numbers.includes(key) && typeof value === 'number'),
  );
  return Object.fromEntries(sound);
}
