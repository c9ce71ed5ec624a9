/** Layers' names: text of 36 characters, upper case where we write it, in dashed groups 8-4-4-4-12. */
import { ErrorCodes, ObdError } from '../errors.js';

/** The uuid of a layer without a name, and the parent uuid of one without a parent. */
export const NULL_UUID = '00000000-0000-0000-0000-000000000000';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The UUID in upper case, or undefined if it is none. */
export function normalizeUuid(text: string): string | undefined {
  return UUID.test(text) ? text.toUpperCase() : undefined;
}

/** @throws {ObdError} `InvalidArgument`. */
export function requireUuid(text: string): string {
  const uuid = normalizeUuid(text);
  if (uuid !== undefined) return uuid;
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `"${text}" is not a UUID of the form ${NULL_UUID}`,
  );
}
