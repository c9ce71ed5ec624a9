/**
 * A gRPC server on a unix socket, whose services are plain objects of async functions.
 *
 *   1. When listen() returns, the socket exists with mode 0600, and only its owner could ever connect
 *      (src/io/socket-file.ts).
 *   2. A handler that throws an ObdError is answered as in status.ts. Any other error is a bug: the server logs it with
 *      its stack, answers INTERNAL and keeps running.
 *   3. If the client disconnects, cancels or passes its deadline, the handler's signal is aborted.
 */
import { once } from 'node:events';
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  type Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type sendUnaryData,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { ErrorCodes, ObdError } from '../errors.js';
import { placeSocket } from '../io/socket-file.js';
import { statusOf } from './status.js';

/** Message limit, as in containerd. */
const MESSAGE_BYTES_MAX = 16 << 20;

/** Facts about a call that a handler may need besides the request. */
interface CallContext {
  readonly signal: AbortSignal;
  /** The first value of a header, e.g. `containerd-namespace`. */
  header(name: string): string | undefined;
}

type Declared<H> = { [M in keyof H as string extends M ? never : M]: H[M] };

/**
 * The functions that implement a service, derived from its generated `…Handlers`: an async function for a unary method,
 * an async generator for a streaming one. (A streaming handler has one parameter and would pass for a unary one: hence
 * the order.)
 */
export type Implementation<H> = {
  readonly [M in keyof Declared<H>]: Declared<H>[M] extends handleServerStreamingCall<
    infer Request,
    infer Response
  >
    ? (request: Request, context: CallContext) => AsyncIterable<Response>
    : Declared<H>[M] extends handleUnaryCall<infer Request, infer Response>
      ? (request: Request, context: CallContext) => Promise<Response>
      : never;
};

/** pino's logger, or a test's. */
export interface ServerLog {
  error(fields: object, message: string): void;
}

export interface Service {
  readonly definition: ServiceDefinition;
  readonly implementation: object;
}

/**
 * A service for GrpcServer.listen().
 *
 * @param definition - From loadService().
 * @typeParam H - The generated `…Handlers` of the service.
 */
export function service<H>(definition: object, implementation: Implementation<H>): Service {
  return { definition: definition as ServiceDefinition, implementation };
}

type Handler = (
  request: unknown,
  context: CallContext,
) => Promise<unknown> | AsyncIterable<unknown>;

export class GrpcServer {
  readonly #server: Server;
  readonly #removeSocket: () => Promise<void>;

  private constructor(server: Server, removeSocket: () => Promise<void>) {
    this.#server = server;
    this.#removeSocket = removeSocket;
  }

  /** @throws {ObdError} as placeSocket(). */
  static async listen(
    socketPath: string,
    services: readonly Service[],
    log: ServerLog,
  ): Promise<GrpcServer> {
    const server = new Server({
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    });
    for (const { definition, implementation } of services) {
      server.addService(definition, boundHandlers(definition, implementation, log));
    }
    try {
      const removeSocket = await placeSocket(socketPath, (path) => bind(server, path));
      return new GrpcServer(server, removeSocket);
    } catch (error) {
      server.forceShutdown();
      throw error;
    }
  }

  /** Removes the socket, then waits up to `graceMs` for calls in flight before it cancels them. Idempotent. */
  async close(graceMs: number): Promise<void> {
    await this.#removeSocket();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => this.#server.forceShutdown(), graceMs);
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

async function bind(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), (error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
}

function boundHandlers(
  definition: ServiceDefinition,
  implementation: object,
  log: ServerLog,
): UntypedServiceImplementation {
  const bound: UntypedServiceImplementation = {};
  for (const [name, { path, responseStream }] of Object.entries(definition)) {
    const method = Reflect.get(implementation, name) as Handler;
    const handler: Handler = (request, context) => method.call(implementation, request, context);
    const failed = (error: unknown) => {
      if (!(error instanceof ObdError))
        log.error({ err: error, call: path }, 'call failed by a bug, answered INTERNAL');
      return statusOf(error);
    };
    bound[name] = responseStream
      ? (call: ServerWritableStream<unknown, unknown>) => stream(call, handler, failed)
      : (call: ServerUnaryCall<unknown, unknown>, callback: sendUnaryData<unknown>) =>
          answer(call, callback, handler, failed);
  }
  return bound;
}

type Failed = (error: unknown) => ReturnType<typeof statusOf>;

async function answer(
  call: ServerUnaryCall<unknown, unknown>,
  callback: sendUnaryData<unknown>,
  handler: Handler,
  failed: Failed,
): Promise<void> {
  let response: unknown;
  try {
    response = await (handler(call.request, contextOf(call)) as Promise<unknown>);
  } catch (error) {
    callback(failed(error));
    return;
  }
  callback(null, response);
}

async function stream(
  call: ServerWritableStream<unknown, unknown>,
  handler: Handler,
  failed: Failed,
): Promise<void> {
  const context = contextOf(call);
  try {
    const responses = handler(call.request, context) as AsyncIterable<unknown>;
    for await (const response of responses) {
      context.signal.throwIfAborted();
      if (!call.write(response)) await once(call, 'drain', { signal: context.signal });
    }
    call.end();
  } catch (error) {
    // The client is gone and takes no answer.
    if (context.signal.aborted) call.end();
    else call.emit('error', failed(error));
  }
}

function contextOf(call: { on(event: 'cancelled', f: () => void): unknown; metadata: Metadata }) {
  const controller = new AbortController();
  call.on('cancelled', () =>
    controller.abort(new ObdError(ErrorCodes.Unavailable, 'Cancelled: the client is gone')),
  );
  const header = (name: string) => call.metadata.get(name)[0]?.toString();
  return { signal: controller.signal, header };
}
