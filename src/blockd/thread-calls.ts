/**
 * Calls from one thread to another and back, over one port. Handlers start in the order of the messages, and the handlers
 * of calls that were sent in one turn start in one turn.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { deserializedError, type SerializedError, serializedError } from './serialized-error.js';

type Calls = Record<string, (parameters: never) => unknown>;
type ParametersOf<F extends Calls[string]> = Parameters<F>[0];

/** The handlers for calls of the other side. */
export type Handlers<C extends Calls> = {
  readonly [K in keyof C]: (
    parameters: ParametersOf<C[K]>,
  ) => ReturnType<C[K]> | Promise<ReturnType<C[K]>>;
};

type Message =
  | { readonly call: number; readonly name: string; readonly parameters: unknown }
  | { readonly name: string; readonly parameters: unknown; readonly call?: undefined }
  | { readonly answer: number; readonly value: unknown; readonly error?: undefined }
  | { readonly answer: number; readonly error: SerializedError };

/** A Worker, the port that it has to its parent, or one end of a MessageChannel. */
export interface Port {
  postMessage(message: Message): void;
  on: (event: 'message', listener: (message: Message) => void) => unknown;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** Calls another thread. */
export interface Caller<Out extends Calls> {
  /** @throws what the handler throws there; `Unavailable` if that thread ends. */
  call<K extends keyof Out & string>(
    name: K,
    parameters: ParametersOf<Out[K]>,
  ): Promise<ReturnType<Out[K]>>;

  /** For calls without an answer: a failure of the handler is a bug, and ends that thread. */
  notify<K extends keyof Out & string>(name: K, parameters: ParametersOf<Out[K]>): void;
}

/** @typeParam Out - What is called there. @typeParam In - What is called here. */
export class ThreadCalls<Out extends Calls, In extends Calls> implements Caller<Out> {
  readonly #port: Port;
  readonly #handlers: Handlers<In>;
  readonly #waiting = new Map<number, Waiting>();
  #lastCall = 0;
  #ended: string | undefined;

  constructor(port: Port, handlers: Handlers<In>) {
    this.#port = port;
    this.#handlers = handlers;
    port.on('message', (message) => this.#take(message));
  }

  call<K extends keyof Out & string>(
    name: K,
    parameters: ParametersOf<Out[K]>,
  ): Promise<ReturnType<Out[K]>> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) {
        reject(endedError(this.#ended));
        return;
      }
      const call = ++this.#lastCall;
      this.#waiting.set(call, { resolve: resolve as (value: unknown) => void, reject });
      this.#port.postMessage({ call, name, parameters });
    });
  }

  notify<K extends keyof Out & string>(name: K, parameters: ParametersOf<Out[K]>): void {
    this.#port.postMessage({ name, parameters });
  }

  /** The other thread has ended: fails its pending calls. Idempotent. */
  end(why: string): void {
    this.#ended ??= why;
    for (const { reject } of this.#waiting.values()) reject(endedError(this.#ended));
    this.#waiting.clear();
  }

  #take(message: Message): void {
    if ('answer' in message) {
      const waiting = this.#waiting.get(message.answer);
      this.#waiting.delete(message.answer);
      if (message.error !== undefined) waiting?.reject(deserializedError(message.error));
      else waiting?.resolve(message.value);
      return;
    }
    const handler = this.#handlers[message.name] as (parameters: unknown) => unknown;
    if (message.call === undefined) handler(message.parameters);
    else void this.#answer(message.call, handler, message.parameters);
  }

  async #answer(
    answer: number,
    handler: (parameters: unknown) => unknown,
    parameters: unknown,
  ): Promise<void> {
    try {
      this.#port.postMessage({ answer, value: await handler(parameters) });
    } catch (error) {
      this.#port.postMessage({ answer, error: serializedError(error) });
    }
  }
}

function endedError(why: string): ObdError {
  return new ObdError(ErrorCodes.Unavailable, `Cannot serve devices: ${why}`);
}
