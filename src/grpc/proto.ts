/**
 * The services of proto/, for client and server alike: methods with their paths and codecs, typed by src/grpc/gen.
 *
 * How messages look, here and in tools/gen-proto.js:
 *
 *   fields   in camelCase; a field that was not sent has its default, a message field null
 *   enums    the names of their values
 *   int64    a number. Every int64 of these interfaces is a size, an offset or a count below 2^53. Decoding refuses
 *            a message with a larger one, so a number is never rounded
 *
 * Types are generated because handwritten ones get two things wrong: the spelling of a field in the .proto, and
 * whether it may be null.
 */
import { dirname, join } from 'node:path';
import type { ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ErrorCodes, ObdError } from '../errors.js';
import { findProgramFile } from '../io/program-files.js';

/**
 * @param file - Path of the .proto, from proto/.
 * @param name - Of the service, with its package.
 * @typeParam S - The generated `…Definition` of that service.
 */
export function loadService<S extends object>(file: string, name: string): S {
  const loaded = loadSync(file, {
    includeDirs: [protoRoot()],
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const service = loaded[name] as ServiceDefinition | undefined;
  if (service === undefined) throw new TypeError(`${file} has no service ${name}`);
  const checked = Object.entries(service).map(([method, definition]) => {
    const requestDeserialize = refusingUnsafe(definition.requestDeserialize);
    const responseDeserialize = refusingUnsafe(definition.responseDeserialize);
    return [method, { ...definition, requestDeserialize, responseDeserialize }];
  });
  return Object.fromEntries(checked) as S;
}

function protoRoot(): string {
  const found = findProgramFile(join('proto', 'obd'));
  if (found !== undefined) return dirname(found);
  throw new ObdError(
    ErrorCodes.Host,
    `Cannot find the folder "proto" above "${import.meta.dirname}": the installation is incomplete`,
  );
}

function refusingUnsafe(deserialize: (bytes: Buffer) => unknown): (bytes: Buffer) => unknown {
  return (bytes) => {
    const message = deserialize(bytes);
    checkIntegers(message);
    return message;
  };
}

function checkIntegers(value: unknown): void {
  if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw new ObdError(ErrorCodes.Unsupported, `Cannot use the number ${value}: it passes 2^53`);
  }
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return;
  for (const field of Object.values(value)) checkIntegers(field);
}
