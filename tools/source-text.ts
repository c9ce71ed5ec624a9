/**
 * Splits TypeScript, C++ and shell text into comments and string literals, without a parser.
 *
 * This is exact enough for checks of prose and imports: it follows nested templates, and tells a regular expression
 * from a division by the token before the slash. A regular expression is neither a comment nor a string.
 */

/** A string literal, or strings joined by `+`. */
export interface StringLiteral {
  /** Its content; `…` stands for each `${}` of a template. Escapes are kept as written. */
  readonly text: string;
  readonly line: number;
  /** Up to 80 characters of code just before it, without comments; white space is collapsed. */
  readonly before: string;
  /** The calls around it, innermost last: `log.warn`, `new ObdError`, `test`. */
  readonly calls: readonly string[];
}

export interface Comment {
  /** Without comment marks; adjacent line comments are one comment. */
  readonly text: string;
  readonly line: number;
}

export interface SourceText {
  readonly comments: readonly Comment[];
  readonly strings: readonly StringLiteral[];
}

const BEFORE_CHARS = 80;
const CALLEE = /(?:\bnew\s+)?[\w$#.?!:]*[\w$]\s*(?:<[\w\s,.[\]|]*>)?$/;
const REGEX_MAY_FOLLOW = /(?:^|[([{,;=:?!&|+*%<>~^-]|\b(?:return|typeof|case|of|in))\s*$/;
const REGEX = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/y;
const QUOTED = { "'": /'((?:\\[\s\S]|[^'\\\n])*)'/y, '"': /"((?:\\[\s\S]|[^"\\\n])*)"/y };
const SHELL_COMMENT = /^\s*#(?!!)\s?/;

export function sourceText(path: string, text: string): SourceText {
  if (/\.(ts|js|cc|h|c|proto)$/.test(path)) return new Splitter(text).split();
  return { comments: shellComments(text), strings: [] };
}

function shellComments(text: string): Comment[] {
  const joined = new JoinedComments();
  for (const [i, line] of text.split('\n').entries()) {
    if (SHELL_COMMENT.test(line)) joined.add(line.replace(SHELL_COMMENT, ''), i + 1, i + 1);
  }
  return joined.all;
}

/** Comments of consecutive lines as one. */
class JoinedComments {
  readonly all: Array<{ text: string; line: number }> = [];
  #lastLine = Number.NEGATIVE_INFINITY;

  add(text: string, line: number, endLine: number): void {
    const last = this.all.at(-1);
    if (last !== undefined && line === this.#lastLine + 1) last.text += `\n${text}`;
    else this.all.push({ text, line });
    this.#lastLine = endLine;
  }
}

class Splitter {
  readonly #text: string;
  readonly #comments = new JoinedComments();
  readonly #strings: Array<{ text: string; line: number; before: string; calls: string[] }> = [];
  readonly #calls: string[] = [];
  #at = 0;
  #line = 1;
  #countedTo = 0;
  /** All code so far; each string in it is `""`, each regular expression `//`. */
  #code = '';

  constructor(text: string) {
    this.#text = text;
  }

  split(): SourceText {
    this.#codeUntil(undefined);
    return { comments: this.#comments.all, strings: this.#strings };
  }

  /** Reads code up to the brace that closes a template's `${`, or to the end. */
  #codeUntil(end: '}' | undefined): void {
    let depth = 0;
    while (this.#at < this.#text.length) {
      const char = this.#text[this.#at]!;
      if (char === end && depth === 0) return;
      if (char === '{') depth++;
      if (char === '}') depth--;
      this.#token(char);
    }
  }

  #token(char: string): void {
    const two = this.#text.slice(this.#at, this.#at + 2);
    if (two === '//') this.#lineComment();
    else if (two === '/*') this.#blockComment();
    else if (char === '`') this.#template();
    else if (!this.#regex() && !this.#quoted(char)) this.#plain(char);
  }

  #plain(char: string): void {
    if (char === '(') this.#calls.push(this.#callee());
    if (char === ')') this.#calls.pop();
    this.#code += char;
    this.#at++;
  }

  #callee(): string {
    return (CALLEE.exec(this.#code.slice(-BEFORE_CHARS))?.[0] ?? '').trim();
  }

  #regex(): boolean {
    if (this.#text[this.#at] !== '/' || !REGEX_MAY_FOLLOW.test(this.#code.slice(-20))) return false;
    if (this.#match(REGEX) === undefined) return false;
    this.#code += '//';
    return true;
  }

  #quoted(char: string): boolean {
    // After a digit, an apostrophe separates the digits of a C++ number.
    if ((char !== '"' && char !== "'") || /\d$/.test(this.#code.slice(-1))) return false;
    const line = this.#lineNow();
    const found = this.#match(QUOTED[char]);
    if (found !== undefined) this.#string(found[1]!, line);
    return found !== undefined;
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text) ?? undefined;
    if (found !== undefined) this.#at += found[0].length;
    return found;
  }

  #lineComment(): void {
    const line = this.#lineNow();
    const end = this.#text.indexOf('\n', this.#at);
    const text = this.#text.slice(this.#at, end === -1 ? undefined : end);
    this.#at += text.length;
    this.#comments.add(text.replace(/^\/\/+\s?/, ''), line, line);
  }

  #blockComment(): void {
    const line = this.#lineNow();
    const end = this.#text.indexOf('*/', this.#at + 2);
    const text = this.#text.slice(this.#at + 2, end === -1 ? undefined : end);
    this.#at += text.length + (end === -1 ? 2 : 4);
    this.#comments.all.push({ text: text.replace(/^[ \t*]*\*[ \t]?|[ \t]+$/gm, ''), line });
  }

  #template(): void {
    const line = this.#lineNow();
    let text = '';
    this.#at++;
    while (this.#at < this.#text.length && this.#text[this.#at] !== '`') {
      if (this.#text.startsWith('${', this.#at)) {
        this.#at += 2;
        this.#code += '${';
        this.#codeUntil('}');
        this.#code += '}';
        this.#at++;
        text += '…';
        continue;
      }
      const chars = this.#text[this.#at] === '\\' ? 2 : 1;
      text += this.#text.slice(this.#at, this.#at + chars);
      this.#at += chars;
    }
    this.#at++;
    this.#string(text, line);
  }

  #string(text: string, line: number): void {
    const last = this.#strings.at(-1);
    // The second half of a string broken over two lines: 'a ' + 'b', or in C++ "a " "b".
    if (last !== undefined && /""\s*\+?\s*$/.test(this.#code.slice(-BEFORE_CHARS))) {
      last.text += text;
    } else {
      const before = this.#code.slice(-BEFORE_CHARS).replace(/\s+/g, ' ').trim();
      this.#strings.push({ text, line, before, calls: [...this.#calls] });
    }
    this.#code += '""';
  }

  #lineNow(): number {
    for (let i = this.#countedTo; i < this.#at; i++) if (this.#text[i] === '\n') this.#line++;
    this.#countedTo = this.#at;
    return this.#line;
  }
}
