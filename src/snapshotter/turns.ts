/** Bodies that are about the same key run one after the other, in the order in which they came. */
export class Turns<K> {
  readonly #last = new Map<K, Promise<unknown>>();

  async run<T>(key: K, body: () => Promise<T>): Promise<T> {
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
