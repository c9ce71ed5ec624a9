/** Runs functions with the same key one after the other, in the order of the calls. */
export class KeyedMutex<K> {
  readonly #last = new Map<K, Promise<unknown>>();

  async withLock<T>(key: K, body: () => Promise<T>): Promise<T> {
    const previous = this.#last.get(key) ?? Promise.resolve();
    const own = previous.then(body, body);
    this.#last.set(key, own);
    try {
      return await own;
    } finally {
      if (this.#last.get(key) === own) this.#last.delete(key);
    }
  }
}
