/** Observers of one disk as one. */
import type { RequestKind, RequestObserver, ServedFrom } from './request-observer.js';

export class SeveralObservers implements RequestObserver {
  readonly #observers: readonly RequestObserver[];

  constructor(observers: readonly RequestObserver[]) {
    this.#observers = observers;
  }

  started(kind: RequestKind, offset: number, length: number): void {
    for (const each of this.#observers) each.started(kind, offset, length);
  }

  /** Plain parameters, so that no local read allocates an array of them. */
  ended(
    kind: RequestKind,
    offset: number,
    length: number,
    durationMs: number,
    servedFrom: ServedFrom,
    error: unknown,
  ): void {
    for (const each of this.#observers) {
      each.ended(kind, offset, length, durationMs, servedFrom, error);
    }
  }
}
