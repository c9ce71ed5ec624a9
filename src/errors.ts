/**
 * The one error type this project throws on purpose.
 *
 * `code` is the contract: tests, retry logic and the gRPC, errno and exit-status maps switch on it, and it
 * never changes once released. `message` is for people and may be reworded in any commit: the action that
 * failed, a colon, the state found, and, where there is one, the remedy.
 *
 * Programming errors are not ObdErrors: they are assertions and TypeErrors, and nothing catches them.
 */
export const ErrorCodes = {
  /** Stored bytes contradict the format or a checksum. Reading the same copy again is useless. */
  Corrupt: 'ERR_CORRUPT',
  /** The input is well formed but uses a feature or a size that this build does not handle. */
  Unsupported: 'ERR_UNSUPPORTED',
  /** The caller or the configuration said something that makes no sense. */
  InvalidArgument: 'ERR_INVALID_ARGUMENT',
  NotFound: 'ERR_NOT_FOUND',
  AlreadyExists: 'ERR_ALREADY_EXISTS',
  /** The object is there but in a state that forbids the action. */
  FailedPrecondition: 'ERR_FAILED_PRECONDITION',
  /** Someone else is using it; the same call may work later. */
  Busy: 'ERR_BUSY',
  /** The registry wants other credentials, or refuses these. */
  Unauthorized: 'ERR_UNAUTHORIZED',
  /** The registry answered, and the answer was no. */
  Registry: 'ERR_REGISTRY_RESPONSE',
  /** The peer could not be reached, was too slow, or went away mid-reply. Safe to retry. */
  Unavailable: 'ERR_UNAVAILABLE',
  /** A disk, a quota or one of our own limits is full. */
  NoSpace: 'ERR_NO_SPACE',
  /** This host lacks a program, a module or a permission; the message says how to get it. */
  Host: 'ERR_HOST',
  /** A system call or a program failed in a way that none of the above describes. */
  Io: 'ERR_IO',
} as const;

export type ErrorCode = (typeof ErrorCodes)[keyof typeof ErrorCodes];

/** Facts that identify what failed. They are logged as fields, never parsed out of the message. */
export interface ErrorDetails {
  readonly path?: string;
  readonly digest?: string;
  readonly reference?: string;
  /** Bytes from the start of the file that `path` or `digest` names. */
  readonly offset?: number;
  /** Bytes. */
  readonly length?: number;
  /** HTTP status. */
  readonly status?: number;
  /** How long the registry asked us to wait before asking again. */
  readonly retryAfterMs?: number;
}

export class ObdError extends Error {
  override readonly name = 'ObdError';
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.details = details;
  }
}

/** Narrows an unknown caught value; use it instead of `instanceof` chains in catch blocks. */
export function hasCode(error: unknown, code: ErrorCode): error is ObdError {
  return error instanceof ObdError && error.code === code;
}

/** The text of a thrown value, for a message that names its cause. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a Node system error (`ENOENT`…), or undefined for anything else. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof ObdError || !('code' in error))
    return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** Whether a write failed for want of room: disk, quota, or the largest file that the file system has. */
export function isDiskFull(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(systemCode(error) ?? '');
}
