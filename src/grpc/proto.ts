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
import type { MethodDefinition } from '@grpc/grpc-js';
import protobuf from 'protobufjs';
import { ErrorCodes, ObdError } from '../errors.js';
import { findProgramFile } from '../io/program-files.js';

const MESSAGE_FORM = { longs: Number, enums: String, defaults: true, oneofs: true };

/** All files that were loaded, so that each is parsed once. */
let root: protobuf.Root | undefined;

/**
 * @grpc/proto-loader takes 80 ms of each start and this 40, because it also makes descriptors for reflection, and codecs of
 * all messages.
 *
 * @param file - Path of the .proto, from proto/.
 * @param name - Of the service, with its package.
 * @typeParam S - The generated `…Definition` of that service.
 */
export function loadService<S extends object>(file: string, name: string): S {
  root ??= emptyRoot();
  root.loadSync(file);
  const methods = root.lookupService(name).methodsArray.map((method) => {
    method.resolve();
    const { requestStream = false, responseStream = false } = method;
    const request = codecOf(method.resolvedRequestType!);
    const response = codecOf(method.resolvedResponseType!);
    const definition: MethodDefinition<object, object> = {
      path: `/${name}/${method.name}`,
      requestStream,
      responseStream,
      requestSerialize: request.serialize,
      requestDeserialize: request.deserialize,
      responseSerialize: response.serialize,
      responseDeserialize: response.deserialize,
    };
    return [method.name, definition] as const;
  });
  return Object.fromEntries(methods) as S;
}

function emptyRoot(): protobuf.Root {
  const empty = new protobuf.Root();
  const folder = protoRoot();
  empty.resolvePath = (_importer, file) => join(folder, file);
  return empty;
}

interface Codec {
  serialize(message: object): Buffer;
  deserialize(bytes: Buffer): object;
}

function codecOf(type: protobuf.Type): Codec {
  return {
    serialize: (message) => type.encode(type.fromObject(message)).finish() as Buffer,
    deserialize: (bytes) => {
      const message = type.toObject(type.decode(bytes), MESSAGE_FORM);
      checkIntegers(message);
      return message;
    },
  };
}

function protoRoot(): string {
  const found = findProgramFile(join('proto', 'obd'));
  if (found !== undefined) return dirname(found);
  throw new ObdError(
    ErrorCodes.Host,
    `Cannot find the folder "proto" above "${import.meta.dirname}": the installation is incomplete`,
  );
}

function checkIntegers(value: unknown): void {
  if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw new ObdError(ErrorCodes.Unsupported, `Cannot use the number ${value}: it passes 2^53`);
  }
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return;
  for (const field of Object.values(value)) checkIntegers(field);
}
