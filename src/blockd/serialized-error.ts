/** Errors on their way between threads: an ObdError arrives as one, with the messages of its causes. */
import { type ErrorCode, type ErrorDetails, messageOf, ObdError } from '../errors.js';

export interface SerializedError {
  readonly message: string;
  /** Set for other errors than ObdError: they are bugs, and the stack shows where. */
  readonly stack: string | undefined;
  readonly code: ErrorCode | undefined;
  readonly details: ErrorDetails;
  /** Messages of the chain of causes, the direct cause first. */
  readonly causes: readonly string[];
}

/** A chain longer than this is a cycle. */
const CAUSES_MAX = 8;

export function serializedError(error: unknown): SerializedError {
  const causes: string[] = [];
  let cause = error instanceof Error ? error.cause : undefined;
  while (cause !== undefined && causes.length < CAUSES_MAX) {
    causes.push(messageOf(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  const known = error instanceof ObdError;
  return {
    message: messageOf(error),
    stack: !known && error instanceof Error ? error.stack : undefined,
    code: known ? error.code : undefined,
    details: known ? error.details : {},
    causes,
  };
}

export function deserializedError({
  message,
  stack,
  code,
  details,
  causes,
}: SerializedError): Error {
  let cause: Error | undefined;
  for (const text of causes.toReversed()) cause = new Error(text, { cause });
  if (code !== undefined) return new ObdError(code, message, details, cause);
  return Object.assign(new Error(message, { cause }), { stack });
}
