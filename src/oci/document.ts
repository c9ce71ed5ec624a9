/**
 * What all documents of OCI have in common: JSON in UTF-8, digests, media types, annotations, and errors that
 * quote a hostile document safely (OCI image spec 1.1: "descriptor", "annotations").
 */
import * as z from 'zod';
import { ErrorCodes, ObdError } from '../errors.js';
import { digestProblem } from './digest.js';

export const digest = z.string().superRefine((text, context) => {
  const found = digestProblem(text);
  if (found === undefined) return;
  const { problem, unsupported } = found;
  context.addIssue({ code: 'custom', message: problem, params: { unsupported } });
});
/** RFC 6838 names, of at most 127 characters on either side of the slash. */
export const mediaType = z
  .string()
  .regex(/^[\w!#$&^.+-]{1,127}\/[\w!#$&^.+-]{1,127}$/, 'is no media type');
export const annotations = z.record(z.string(), z.string());

/** @throws {ObdError} `Corrupt` unless it is a JSON object. */
export function parseObject(bytes: Uint8Array, label: string): Readonly<Record<string, unknown>> {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw corrupt(label, 'it is not JSON in UTF-8', cause);
  }
  if (typeof json === 'object' && json !== null && !Array.isArray(json)) {
    return json as Readonly<Record<string, unknown>>;
  }
  throw corrupt(label, 'it is JSON, but no object');
}

/** @throws {ObdError} `Corrupt` if it does not fit the schema, `Unsupported` for a sha512 digest. */
export function check<T>(schema: z.ZodType<T>, json: unknown, label: string): T {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? '' : `"${issue.path.join('.')}": `;
  const problem = `${short(where)}${short(issue?.message ?? 'it has the wrong form')}`;
  if (issue?.code === 'custom' && issue.params?.['unsupported'] === true) {
    throw new ObdError(ErrorCodes.Unsupported, `Cannot use ${label}: ${problem}`);
  }
  throw corrupt(label, problem);
}

/** @throws {ObdError} `Unsupported` if there are more than `max`. */
export function checkLimit(found: number, max: number, what: string, label: string): void {
  if (found <= max) return;
  throw new ObdError(
    ErrorCodes.Unsupported,
    `Cannot use ${label}: it has ${found} ${what}, and the limit is ${max}`,
  );
}

export function corrupt(label: string, problem: string, cause?: unknown): ObdError {
  return new ObdError(ErrorCodes.Corrupt, `Cannot use ${label}: ${problem}`, {}, cause);
}

/** Shortens a piece of a hostile document for a message. */
export function short(text: string): string {
  const printable = text.replaceAll(/[^\x20-\x7e]/g, '?');
  return printable.length > 200 ? `${printable.slice(0, 200)}...` : printable;
}
