/**
 * A client of gRPC services on a unix socket: promises, a deadline on every call, ObdErrors for statuses.
 *
 * It connects with the first call, and again after the server was down. While no server listens, a call fails at once.
 * The client never retries a call: only its caller knows which calls are safe to repeat.
 */
import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { ErrorCodes, ObdError } from '../errors.js';
import { checkSocketPath } from '../io/socket-file.js';
import { errorOf } from './status.js';

/** Message limit, as in containerd. */
const MESSAGE_BYTES_MAX = 16 << 20;
/** A daemon restarts within seconds. grpc-js's own backoff begins with 1 s and grows to 120 s. */
const RECONNECT_MS = 100;
const RECONNECT_MS_MAX = 1_000;

/** A method of loadService(), in the client's view. */
export interface ClientMethod<Request, Response> {
  readonly path: string;
  requestSerialize(request: Request): Buffer;
  responseDeserialize(bytes: Buffer): Response;
}

export interface CallOptions {
  /** Applies to a stream as a whole; by default the client's own. */
  readonly timeoutMs?: number;
  /** Aborting it cancels the call, which then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Sent in addition to the client's own headers. */
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ClientOptions {
  /** The server's name for messages: "containerd". */
  readonly peer: string;
  /** For calls that set no limit. */
  readonly timeoutMs: number;
  /** Sent with each call. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Cancels calls that have no signal of their call. */
  readonly signal?: AbortSignal | undefined;
}

export class GrpcClient {
  readonly #client: Client;
  readonly #socketPath: string;
  readonly #options: ClientOptions;

  /**
   * @param connection - For with().
   * @throws {ObdError} `InvalidArgument` for a path that is too long for a socket.
   */
  constructor(socketPath: string, options: ClientOptions, connection?: Client) {
    checkSocketPath(socketPath);
    this.#socketPath = socketPath;
    this.#options = options;
    this.#client = connection ?? connect(socketPath);
  }

  /**
   * Returns a client of the same server over the same connection that adds these headers and this signal. Closing
   * either client closes both.
   */
  with(more: Pick<CallOptions, 'headers' | 'signal'>): GrpcClient {
    const headers = { ...this.#options.headers, ...more.headers };
    const { signal = this.#options.signal } = more;
    return new GrpcClient(this.#socketPath, { ...this.#options, headers, signal }, this.#client);
  }

  /** @throws {ObdError} The server's error, see status.ts; `Unavailable` if no server answered in time. */
  async call<Request, Response>(
    method: ClientMethod<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): Promise<Response> {
    const { signal = this.#options.signal } = options;
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

  /** Yields the responses of a method that streams them. @throws {ObdError} as call(), while it is iterated. */
  async *stream<Request, Response>(
    method: ClientMethod<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): AsyncGenerator<Response, void, undefined> {
    const { signal = this.#options.signal } = options;
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
    // An error emitted after the iteration ended must not end the process.
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

  /**
   * Begins a call of a bidirectional streaming method with one response for each request. Its time limit applies to
   * each request, not to the whole call.
   */
  converse<Request, Response>(
    method: ClientMethod<Request, Response>,
    options: CallOptions = {},
  ): Conversation<Request, Response> {
    const { signal = this.#options.signal, timeoutMs = this.#options.timeoutMs } = options;
    signal?.throwIfAborted();
    const call = this.#client.makeBidiStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      this.#metadata(options),
    );
    return new Conversation(call, timeoutMs, signal, (error) =>
      this.#failure(method, error, signal),
    );
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

  /** Returns the error to throw for an error that a call threw. */
  #failure(method: { path: string }, error: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted) return signal.reason;
    if (!isServiceError(error)) return error;
    const { peer } = this.#options;
    if (
      error.code === status.UNAVAILABLE &&
      error.details.startsWith('No connection established')
    ) {
      const found = error.details
        .replace(/^.*?Last error: (?:Error: )?/, '')
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

/** A call in flight, see GrpcClient.converse(). */
export class Conversation<Request, Response> {
  readonly #call: ClientDuplexStream<Request, Response>;
  readonly #responses: AsyncIterator<Response>;
  readonly #timeoutMs: number;
  readonly #signal: AbortSignal | undefined;
  readonly #failure: (error: unknown) => unknown;
  readonly #cancel: () => void;

  constructor(
    call: ClientDuplexStream<Request, Response>,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    failure: (error: unknown) => unknown,
  ) {
    this.#call = call;
    this.#responses = call[Symbol.asyncIterator]();
    this.#timeoutMs = timeoutMs;
    this.#signal = signal;
    this.#failure = failure;
    this.#cancel = () => call.cancel();
    // An error emitted when no request is pending must not end the process.
    call.on('error', () => {});
    signal?.addEventListener('abort', this.#cancel, { once: true });
  }

  /** Sends a request and waits for its response. @throws {ObdError} as GrpcClient.call(); the conversation is then over. */
  async ask(request: Request): Promise<Response> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#call.cancel();
    }, this.#timeoutMs);
    try {
      this.#call.write(request);
      const { value, done } = await this.#responses.next();
      if (!done) return value;
    } catch (error) {
      if (late) throw tooLate(this.#timeoutMs);
      throw this.#failure(error);
    } finally {
      clearTimeout(timer);
    }
    throw new ObdError(ErrorCodes.Io, 'Cannot go on with a call: the peer ended it early');
  }

  /** Cancels the call in any state. Idempotent. */
  close(): void {
    this.#signal?.removeEventListener('abort', this.#cancel);
    this.#call.end();
    this.#call.cancel();
  }
}

function tooLate(timeoutMs: number): ObdError {
  return new ObdError(
    ErrorCodes.Unavailable,
    `Cannot go on with a call: no answer in ${timeoutMs} ms`,
  );
}

function connect(socketPath: string): Client {
  return new Client(`unix:${socketPath}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    'grpc.initial_reconnect_backoff_ms': RECONNECT_MS,
    'grpc.max_reconnect_backoff_ms': RECONNECT_MS_MAX,
  });
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error;
}
