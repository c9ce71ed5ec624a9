/**
 * A client of gRPC services on a unix socket: promises, a deadline on every call, ObdErrors for statuses.
 *
 * It connects with the first call and again whenever the server was away; a call fails at once while nobody
 * listens. Nothing is repeated here: only the caller knows what may be.
 */
import {
  Client,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { ErrorCodes, ObdError } from '../errors.js';
import { checkSocketPath } from './socket-file.js';
import { errorOf } from './status.js';

/** containerd sends and takes as much. */
const MESSAGE_BYTES_MAX = 16 << 20;
/** A daemon that restarts is back within seconds; grpc-js's own first pause is one, growing to 120. */
const RECONNECT_MS = 100;
const RECONNECT_MS_MAX = 1_000;

/** A method of loadService(), as a client sees it. */
export interface ClientMethod<Request, Response> {
  readonly path: string;
  requestSerialize(request: Request): Buffer;
  responseDeserialize(bytes: Buffer): Response;
}

export interface CallOptions {
  /** Counts for a stream as a whole; the client's own if left out. */
  readonly timeoutMs?: number;
  /** Cancels the call; its reason is what the call then throws. */
  readonly signal?: AbortSignal | undefined;
  /** Headers besides the client's own. */
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ClientOptions {
  /** Who it is, for messages: "containerd". */
  readonly peer: string;
  /** For each call that does not say otherwise. */
  readonly timeoutMs: number;
  /** Sent with each call. */
  readonly headers?: Readonly<Record<string, string>>;
}

export class GrpcClient {
  readonly #client: Client;
  readonly #socketPath: string;
  readonly #options: ClientOptions;

  /** @throws {ObdError} `InvalidArgument` for a path that is too long for a socket. */
  constructor(socketPath: string, options: ClientOptions) {
    checkSocketPath(socketPath);
    this.#socketPath = socketPath;
    this.#options = options;
    this.#client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
      'grpc.initial_reconnect_backoff_ms': RECONNECT_MS,
      'grpc.max_reconnect_backoff_ms': RECONNECT_MS_MAX,
    });
  }

  /** @throws {ObdError} what the server answered, see status.ts; `Unavailable` if nobody did in time. */
  async call<Request, Response>(
    method: ClientMethod<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): Promise<Response> {
    const { signal } = options;
    signal?.throwIfAborted();
    let cancel = () => {};
    try {
      return await new Promise<Response>((resolve, reject) => {
        const call = this.#client.makeUnaryRequest(
          method.path,
          method.requestSerialize,
          method.responseDeserialize,
          request,
          this.#metadata(options),
          this.#deadline(options),
          (error: ServiceError | null, response?: Response) => {
            if (error === null) resolve(response as Response);
            else reject(error);
          },
        );
        cancel = () => call.cancel();
        signal?.addEventListener('abort', cancel, { once: true });
      });
    } catch (error) {
      throw this.#failure(method, error, signal);
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  /** The responses of a method that streams them. @throws {ObdError} as call(), while it is iterated. */
  async *stream<Request, Response>(
    method: ClientMethod<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): AsyncGenerator<Response, void, undefined> {
    const { signal } = options;
    signal?.throwIfAborted();
    const call: ClientReadableStream<Response> = this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      this.#metadata(options),
      this.#deadline(options),
    );
    const cancel = () => call.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    // What is still emitted once nobody iterates any more must not end the process.
    call.on('error', () => {});
    try {
      yield* call as AsyncIterable<Response>;
    } catch (error) {
      throw this.#failure(method, error, signal);
    } finally {
      signal?.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  close(): void {
    this.#client.close();
  }

  #metadata({ headers }: CallOptions): Metadata {
    const metadata = new Metadata();
    for (const [name, value] of Object.entries({ ...this.#options.headers, ...headers })) {
      metadata.set(name, value);
    }
    return metadata;
  }

  #deadline({ timeoutMs }: CallOptions): { deadline: number } {
    return { deadline: Date.now() + (timeoutMs ?? this.#options.timeoutMs) };
  }

  /** What to throw for what a call threw. */
  #failure(method: { path: string }, error: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted) return signal.reason;
    if (!isServiceError(error)) return error;
    const { peer } = this.#options;
    if (
      error.code === status.UNAVAILABLE &&
      error.details.startsWith('No connection established')
    ) {
      const found = error.details
        .replace(/^.*?Last error: /, '')
        .replace(/\. Resolution note:.*$/, '');
      return new ObdError(
        ErrorCodes.Unavailable,
        `Cannot reach ${peer} at "${this.#socketPath}": ${found}; check that it runs, and where it listens`,
        { path: this.#socketPath },
        error,
      );
    }
    return errorOf(error, `${peer} (${method.path.replace(/^\/(?:.*\.)?/, '')})`);
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error;
}
