/** Errors on their way between threads: an ObdError arrives as one, with its cause as text. */
import { type ErrorCode, type ErrorDetails, messageOf, ObdError } from '../errors.js';

export interface SentError {
  readonly message: string;
  /** What it is if it is no ObdError: a bug, so where it comes from. */
  readonly stack: string | undefined;
  readonly code: ErrorCode | undefined;
  readonly details: ErrorDetails;
  readonly cause: string | undefined;
}

export function sentError(error: unknown): SentError {
  const message = messageOf(error);
  if (!(error instanceof ObdError)) {
    const stack = error instanceof Error ? error.stack : undefined;
    return { message, stack, code: undefined, details: {}, cause: undefined };
  }
  const { code, details, cause } = error;
  const causeText = cause === undefined ? undefined : messageOf(cause);
  return { message, stack: undefined, code, details, cause: causeText };
}

export function receivedError({ message, stack, code, details, cause }: SentError): Error {
  if (code !== undefined) return new ObdError(code, message, details, cause);
  return Object.assign(new Error(message), { stack });
}
