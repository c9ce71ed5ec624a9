/**
 * The records of a pax extended header: `LENGTH KEY=VALUE\n`, LENGTH counting the whole record.
 *
 * Format: POSIX.1-2017, pax, "pax Extended Header". Values stay bytes. A record may appear more than once
 * and the last one counts, except in GNU's sparse format 0.0, where a run of `GNU.sparse.offset` and
 * `GNU.sparse.numbytes` is the map itself; those are kept in order, apart.
 */
import { HeaderProblem } from './header-block.js';
import type { TarTime } from './tar-entry.js';

const XATTR_PREFIX = 'SCHILY.xattr.';
const NEWLINE = 0x0a;
const SPACE = 0x20;
const EQUALS = 0x3d;

export class PaxRecords {
  readonly #values = new Map<string, Uint8Array>();
  /** Offsets and lengths of a sparse file in format 0.0, alternating, in their original order. */
  readonly sparsePairs: number[] = [];

  /** Records of `global` that `local` does not repeat, then those of `local`. */
  static merge(global: PaxRecords | undefined, local: PaxRecords | undefined): PaxRecords {
    const merged = new PaxRecords();
    for (const records of [global, local]) {
      if (records === undefined) continue;
      for (const [key, value] of records.#values) merged.#values.set(key, value);
    }
    merged.sparsePairs.push(...(local?.sparsePairs ?? []));
    return merged;
  }

  /** Bytes that keys and values take. */
  get valueBytes(): number {
    let total = 0;
    for (const [key, value] of this.#values) total += key.length + value.length;
    return total;
  }

  /** @throws {HeaderProblem} `bytes` is not retained. */
  static parse(bytes: Uint8Array): PaxRecords {
    const records = new PaxRecords();
    let at = 0;
    while (at < bytes.length) {
      const space = bytes.indexOf(SPACE, at);
      const lengthText = latin1(bytes.subarray(at, space < 0 ? bytes.length : space));
      const end = at + (/^[0-9]{1,9}$/.test(lengthText) ? Number(lengthText) : 0);
      if (space < 0 || end <= space || end > bytes.length || bytes[end - 1] !== NEWLINE) {
        throw new HeaderProblem(`the pax record at byte ${at} of its header has no sound length`);
      }
      const equals = bytes.indexOf(EQUALS, space + 1);
      if (equals < 0 || equals >= end) {
        throw new HeaderProblem(`the pax record at byte ${at} of its header has no "="`);
      }
      records.#add(latin1(bytes.subarray(space + 1, equals)), bytes.slice(equals + 1, end - 1));
      at = end;
    }
    return records;
  }

  #add(key: string, value: Uint8Array): void {
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
      const isOffset = key === 'GNU.sparse.offset';
      if (isOffset !== (this.sparsePairs.length % 2 === 0)) {
        throw new HeaderProblem(`${key} is out of turn`);
      }
      this.sparsePairs.push(parseNatural(latin1(value), key));
    }
    this.#values.set(key, value);
  }

  /** A path. An empty value means "as if there were no record" (POSIX). @throws {HeaderProblem} */
  path(key: string): Uint8Array | undefined {
    const value = this.#values.get(key);
    if (value === undefined || value.length === 0) return undefined;
    if (value.includes(0)) throw new HeaderProblem(`the pax record ${key} contains NUL`);
    return value;
  }

  text(key: string): string | undefined {
    const value = this.#values.get(key);
    return value === undefined || value.length === 0 ? undefined : latin1(value);
  }

  /** A decimal number from 0 to 2^53 - 1. @throws {HeaderProblem} */
  natural(key: string): number | undefined {
    const text = this.text(key);
    return text === undefined ? undefined : parseNatural(text, key);
  }

  /** Decimal seconds with an optional sign and fraction; more than nine places are cut. */
  time(key: string): TarTime | undefined {
    const text = this.text(key);
    if (text === undefined) return undefined;
    const match = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(text);
    if (match === null) throw new HeaderProblem(`the pax record ${key} is no time (${clip(text)})`);
    const whole = Number(match[2]);
    const nanoseconds = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
    if (match[1] !== '-') return { seconds: whole, nanoseconds };
    if (nanoseconds === 0) return { seconds: whole === 0 ? 0 : -whole, nanoseconds };
    return { seconds: -whole - 1, nanoseconds: 1e9 - nanoseconds };
  }

  /** `SCHILY.xattr.NAME` records. Here an empty value is a value: an xattr may be empty. */
  xattrs(): Map<string, Uint8Array> {
    const xattrs = new Map<string, Uint8Array>();
    for (const [key, value] of this.#values) {
      if (!key.startsWith(XATTR_PREFIX)) continue;
      const name = key.slice(XATTR_PREFIX.length);
      if (name === '' || name.includes('\0')) {
        throw new HeaderProblem('an xattr record has an empty name or one with NUL in it');
      }
      xattrs.set(name, value);
    }
    return xattrs;
  }
}

/** @throws {HeaderProblem} */
export function parseNatural(text: string, key: string): number {
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) {
    throw new HeaderProblem(`${key} is no number this reader can hold (${clip(text)})`);
  }
  return value;
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

function clip(text: string): string {
  return JSON.stringify(text.slice(0, 40));
}
