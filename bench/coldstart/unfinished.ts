/** The results of a full run that was not finished, so that the next one measures only what is left. */
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from './folders.js';
import type { Cell, CellResult } from './plan.js';

export class Unfinished {
  readonly results: CellResult[] = [];
  readonly #path = join(cacheFolder(), 'unfinished.jsonl');

  /** @param key - Of the plan and the programs; results of another one are dropped. */
  constructor(key: string) {
    const [first, ...lines] = existsSync(this.#path)
      ? readFileSync(this.#path, 'utf8').trim().split('\n')
      : [];
    if (first === key) {
      const results = lines.map((line) => JSON.parse(line) as CellResult);
      // A failed one is measured again.
      this.results.push(...results.filter(({ measured }) => measured !== undefined));
    } else writeFileSync(this.#path, `${key}\n`);
  }

  has(cell: Cell): boolean {
    return this.results.some(
      (each) =>
        each.measured !== undefined &&
        each.image === cell.image &&
        each.link === cell.link &&
        each.way === cell.way &&
        each.round === cell.round,
    );
  }

  add(result: CellResult): void {
    this.results.push(result);
    appendFileSync(this.#path, `${JSON.stringify(result)}\n`);
  }

  finish(): void {
    rmSync(this.#path);
  }
}
