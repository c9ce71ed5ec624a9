/** Names that lapse after a while. Above a limit, the oldest lapse at once. */
export class LapsingNames {
  readonly #max: number;
  /** When each lapses, on the clock of performance.now(). Oldest first. */
  readonly #untilMs = new Map<string, number>();

  constructor(max: number) {
    this.#max = max;
  }

  has(name: string): boolean {
    return (this.#untilMs.get(name) ?? 0) > performance.now();
  }

  /** @param forMs - From now on. */
  add(name: string, forMs: number): void {
    this.#untilMs.delete(name);
    this.#untilMs.set(name, performance.now() + forMs);
    for (const oldest of this.#untilMs.keys()) {
      if (this.#untilMs.size <= this.#max) return;
      this.#untilMs.delete(oldest);
    }
  }

  delete(name: string): void {
    this.#untilMs.delete(name);
  }
}
