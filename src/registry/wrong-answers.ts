/**
 * Which addresses answered a request for a blob or manifest with something else: a mirror with damaged bytes, a page of
 * HTML, another size. For WRONG_MS, such an address is asked last for that blob or manifest. Once all its addresses are
 * marked, the marks are dropped and the search begins anew with the first.
 */
import { addressOf, type Endpoint } from './endpoint.js';

/** A mirror that was repaired is used again after this time. */
const WRONG_MS = 300_000;
/** Far more than are wrong at once; the oldest mark is dropped. */
const MARKS_MAX = 1024;

interface Mark {
  readonly address: string;
  readonly untilMs: number;
}

export class WrongAnswers {
  readonly #marks = new Map<string, Mark>();

  /**
   * @param resource - The URL of the blob or manifest at the registry itself.
   * @param address - addressOf() an endpoint.
   * @returns Whether it is the only mark of the address: the first of many wrong answers is worth a log line.
   */
  add(resource: string, address: string): boolean {
    const nowMs = performance.now();
    const key = `${address} ${resource}`;
    let isFirst = true;
    for (const [each, mark] of this.#marks) {
      if (mark.untilMs <= nowMs || each === key) this.#marks.delete(each);
      if (mark.untilMs > nowMs && mark.address === address) isFirst = false;
    }
    const [oldest] = this.#marks.keys();
    if (oldest !== undefined && this.#marks.size >= MARKS_MAX) this.#marks.delete(oldest);
    this.#marks.set(key, { address, untilMs: nowMs + WRONG_MS });
    return isFirst;
  }

  has(resource: string, endpoint: Endpoint): boolean {
    const mark = this.#marks.get(`${addressOf(endpoint)} ${resource}`);
    return mark !== undefined && mark.untilMs > performance.now();
  }

  /** The endpoints in the order in which they are asked for the resource. */
  inOrder(resource: string, endpoints: readonly Endpoint[]): readonly Endpoint[] {
    if (this.#marks.size === 0) return endpoints;
    const right = endpoints.filter((endpoint) => !this.has(resource, endpoint));
    if (right.length === endpoints.length) return endpoints;
    if (right.length > 0) return [...right, ...endpoints.filter((each) => !right.includes(each))];
    for (const endpoint of endpoints) this.#marks.delete(`${addressOf(endpoint)} ${resource}`);
    return endpoints;
  }

  clear(): void {
    this.#marks.clear();
  }
}
