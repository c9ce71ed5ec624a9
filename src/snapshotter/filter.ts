/**
 * containerd's filter language, with which a client says which snapshots List shall send.
 *
 *   filters   selectors of one string, joined by "," (all must match); of several strings, one has to
 *   selector  fieldpath                    the field is there
 *             fieldpath == value           and has this value
 *             fieldpath != value           is absent or has another one
 *             fieldpath ~= value           its text, or "" if absent, contains a match of this regular expression
 *   fieldpath field ("." field)*           field: letters, digits and "_", or quoted
 *   value     all up to a space or ","; or quoted with "", and for ~= also with // or ||
 *
 * Quotes are Go's: \n, \t, \x41, \101, \u1234, \U00012345. An empty string, like no string, matches everything.
 * Regular expressions are JavaScript's where containerd has Go's RE2; what both know means the same in both.
 */
import { ErrorCodes, messageOf, ObdError } from '../errors.js';

/** The value of a field, or undefined where there is none. */
type FieldOf = (path: readonly string[]) => string | undefined;
export type Filter = (field: FieldOf) => boolean;

/** Longer ones are no filters: containerd writes them from names, which have at most 4096 bytes. */
const FILTER_LENGTH_MAX = 1 << 16;

const OPERATORS = ['==', '!=', '~='] as const;
type Operator = (typeof OPERATORS)[number];

/** @throws {ObdError} `InvalidArgument` with the text and the place where it stops making sense. */
export function parseFilters(texts: readonly string[]): Filter {
  const filters = texts.map((text) => new FilterParser(text).parse());
  if (filters.length === 0) return () => true;
  return (field) => filters.some((filter) => filter(field));
}

class FilterParser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
    if (text.length > FILTER_LENGTH_MAX) {
      throw this.#error(`it has ${text.length} characters, and the limit is ${FILTER_LENGTH_MAX}`);
    }
  }

  parse(): Filter {
    this.#skipSpace();
    if (this.#atEnd()) return () => true;
    const selectors = [this.#selector()];
    while (!this.#atEnd()) {
      if (this.#text[this.#at] !== ',') throw this.#error('wanted "," or the end');
      this.#at++;
      selectors.push(this.#selector());
    }
    return (field) => selectors.every((selector) => selector(field));
  }

  #selector(): Filter {
    const path = [this.#field()];
    while (this.#text[this.#at] === '.') {
      this.#at++;
      path.push(this.#field());
    }
    const operator = this.#operator();
    if (operator === undefined) return (field) => field(path) !== undefined;
    const value = this.#value(operator === '~=');
    if (operator === '==') return (field) => field(path) === value;
    if (operator === '!=') return (field) => field(path) !== value;
    const pattern = this.#pattern(value);
    return (field) => pattern.test(field(path) ?? '');
  }

  #field(): string {
    this.#skipSpace();
    const field = this.#quoted('"') ?? this.#match(/[\p{L}\p{N}_]+/uy);
    if (field === undefined) throw this.#error('wanted the name of a field');
    this.#skipSpace();
    return field;
  }

  #operator(): Operator | undefined {
    const run = this.#match(/[=!~]+/y);
    if (run === undefined) return undefined;
    const operator = OPERATORS.find((known) => known === run);
    if (operator === undefined) {
      throw this.#error(`"${run}" is no operator, the operators are ${OPERATORS.join(' ')}`);
    }
    return operator;
  }

  #value(isPattern: boolean): string {
    this.#skipSpace();
    const value = this.#quoted(isPattern ? '"/|' : '"') ?? this.#match(/[^\s,"/|][^\s,]*/y);
    if (value === undefined)
      throw this.#error('wanted a value, in double quotes if it is not a word');
    this.#skipSpace();
    return value;
  }

  #quoted(quotes: string): string | undefined {
    const quote = this.#text[this.#at];
    if (quote === undefined || !quotes.includes(quote)) return undefined;
    const escapable = quote === '|' ? '\\|' : quote;
    const found = this.#match(
      new RegExp(`${escapable}(?:[^\\\\\\n${escapable}]|\\\\.)*${escapable}`, 'y'),
    );
    if (found === undefined) throw this.#error(`the quote ${quote} is not closed`);
    // In a pattern between slashes or bars, only the quote itself needs an escape; the rest is the pattern's own.
    if (quote !== '"') return found.slice(1, -1).replaceAll(`\\${quote}`, quote);
    return this.#unescape(found.slice(1, -1));
  }

  #unescape(body: string): string {
    const bytes: Buffer[] = [];
    const pieces =
      /\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|[^\\]+/gu;
    for (const [piece, hex, octal, short, long, letter] of body.matchAll(pieces)) {
      const byte =
        hex !== undefined ? parseInt(hex, 16) : octal !== undefined && parseInt(octal, 8);
      const point = short ?? long;
      if (byte !== false) {
        if (byte > 0xff) throw this.#error(`"${piece}" is no byte`);
        bytes.push(Buffer.from([byte]));
      } else if (point !== undefined) {
        const code = parseInt(point, 16);
        if (code > 0x10ffff) throw this.#error(`"${piece}" is no character`);
        bytes.push(Buffer.from(String.fromCodePoint(code)));
      } else if (letter !== undefined) {
        const meant = SIMPLE_ESCAPES[letter];
        if (meant === undefined) throw this.#error(`"${piece}" is no escape`);
        bytes.push(Buffer.from(meant));
      } else {
        bytes.push(Buffer.from(piece));
      }
    }
    return Buffer.concat(bytes).toString();
  }

  #pattern(value: string): RegExp {
    try {
      return new RegExp(value, 'u');
    } catch (error) {
      throw this.#error(messageOf(error));
    }
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    this.#at += found?.length ?? 0;
    return found;
  }

  #skipSpace(): void {
    this.#match(/\s*/y);
  }

  #atEnd(): boolean {
    return this.#at >= this.#text.length;
  }

  #error(problem: string): ObdError {
    const shown = JSON.stringify(this.#text.slice(0, 200));
    return new ObdError(
      ErrorCodes.InvalidArgument,
      `Cannot use filter ${shown}: at character ${this.#at}, ${problem}`,
    );
  }
}

const SIMPLE_ESCAPES: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  '\\': '\\',
  "'": "'",
  '"': '"',
};
