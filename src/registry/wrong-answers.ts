/**
 * Which addresses answered a request for a blob or manifest with something else: a mirror with damaged bytes, a page of
 * HTML, another size. For WRONG_MS, such an address is asked last for that blob or manifest.
 *
 * Marked addresses are asked in the order of their marks, and a further wrong answer puts an address behind the others. So each is
 * asked in turn, also one that was marked by mistake: bytes may fail their check when newer ones of another sender have come.
 */
import { addressOf, type Endpoint } from './endpoint.js';

/** A mirror that was repaired is used again after this time. */
const WRONG_MS = 300_000;
/** Far more than are wrong at once; the oldest mark is dropped. */
const MARKS_MAX = 1024;

export class WrongAnswers {
  /** When each mark ends, by address and resource. */
  readonly #marks = new Map<string, number>();
  /** When the next wrong answer of each address is worth a log line. */
  readonly #quietUntilMs = new Map<string, number>();

  /**
   * @param resource - The URL of the blob or manifest at the registry itself.
   * @param address - addressOf() an endpoint.
   * @returns Whether it is the first wrong answer of the address within WRONG_MS: it is worth a log line.
   */
  add(resource: string, address: string): boolean {
    put(this.#marks, `${address} ${resource}`);
    if ((this.#quietUntilMs.get(address) ?? 0) > performance.now()) return false;
    put(this.#quietUntilMs, address);
    return true;
  }

  has(resource: string, endpoint: Endpoint): boolean {
    return this.#untilMs(resource, endpoint) > 0;
  }

  /** The endpoints in the order in which they are asked for the resource: unmarked ones, then those that were marked first. */
  inOrder(resource: string, endpoints: readonly Endpoint[]): readonly Endpoint[] {
    if (this.#marks.size === 0) return endpoints;
    const untilMs = (endpoint: Endpoint) => this.#untilMs(resource, endpoint);
    return endpoints.toSorted((a, b) => untilMs(a) - untilMs(b));
  }

  /** When its mark ends, on the clock of performance.now(); 0 for none. */
  #untilMs(resource: string, endpoint: Endpoint): number {
    const untilMs = this.#marks.get(`${addressOf(endpoint)} ${resource}`) ?? 0;
    return untilMs > performance.now() ? untilMs : 0;
  }

  clear(): void {
    this.#marks.clear();
    this.#quietUntilMs.clear();
  }
}

/** Keeps the key for WRONG_MS. All are kept for as long, so the first is the oldest. */
function put(untilMs: Map<string, number>, key: string): void {
  const nowMs = performance.now();
  untilMs.delete(key);
  for (const [oldest, endMs] of untilMs) {
    if (endMs > nowMs && untilMs.size < MARKS_MAX) break;
    untilMs.delete(oldest);
  }
  untilMs.set(key, nowMs + WRONG_MS);
}
