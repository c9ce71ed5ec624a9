/** Observers of one disk as one. */
import type { RequestObserver } from './request-observer.js';

export class SeveralObservers implements RequestObserver {
  readonly #observers: readonly RequestObserver[];

  constructor(observers: readonly RequestObserver[]) {
    this.#observers = observers;
  }

  started(...about: Parameters<RequestObserver['started']>): void {
    for (const each of this.#observers) each.started(...about);
  }

  ended(...about: Parameters<RequestObserver['ended']>): void {
    for (const each of this.#observers) each.ended(...about);
  }
}
