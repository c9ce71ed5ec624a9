/**
 * The imports of a Python module, read from its source: those that run when it is imported.
 *
 * Left out is what does not run then: bodies of functions, of `except`, of `if TYPE_CHECKING`. Work is linear in the text.
 */

interface PythonImport {
  /** `a.b`; relative ones begin with their dots. */
  readonly module: string;
  /** Names after `import` of a `from`, which may be modules of their own. */
  readonly names: readonly string[];
}

export interface PythonSource {
  readonly imports: readonly PythonImport[];
  /** Constants that look like the dotted name of a module or of something in one. */
  readonly dotted: readonly string[];
}

interface Line {
  readonly indent: number;
  /** Without comments, strings empty, lines in brackets joined. */
  readonly code: string;
}

const TOKEN = /"""|'''|"|'|#|[([{]|[)\]}]|\\\r?\n|\n/g;
const DOTTED = /^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?::[A-Za-z_]\w*)?$/;
const DOTTED_CHARACTERS_MAX = 120;
const DOTTED_MAX = 500;
/** Imported modules and names of one module; the largest of pandas has 300. */
const IMPORTS_MAX = 2_000;
/** Begins a block that does not run in a start. */
const SKIPPED_BLOCK = /^except\b|^if (?:\w+\.)?TYPE_CHECKING\b/;
/** Begins a block that a script runs, most of the time, and an imported module does not. */
const FUNCTION_BLOCK = /^(?:async )?def\b/;
const MAIN_BLOCK = /^if __name__ ?==/;
/** A statement on the line of its block: `try: import x`. */
const BLOCK_PREFIX = /^(?:try|else|finally) ?: ?|^(?:if|elif|with) [^:]*: ?(?=import\b|from\b)/;

/** @param isMain - Whether it is run as a script, and not imported. */
export function readPython(text: string, isMain: boolean): PythonSource {
  const dotted = new Set<string>();
  const imports: PythonImport[] = [];
  let names = 0;
  let skippedAt: number | undefined;
  for (const { indent, code } of logicalLines(text, dotted)) {
    if (code === '' || (skippedAt !== undefined && indent > skippedAt)) continue;
    skippedAt = undefined;
    const isOfScript = FUNCTION_BLOCK.test(code) || MAIN_BLOCK.test(code);
    if (SKIPPED_BLOCK.test(code) || (!isMain && isOfScript)) {
      skippedAt = indent;
      continue;
    }
    for (const part of code.replace(BLOCK_PREFIX, '').split(';')) {
      for (const found of importsOf(part.trim())) {
        names += 1 + found.names.length;
        if (names <= IMPORTS_MAX) imports.push(found);
      }
    }
  }
  return { imports, dotted: [...dotted] };
}

function importsOf(statement: string): PythonImport[] {
  const plain = /^import ([\w., ]+)$/.exec(statement);
  if (plain !== null) {
    return namesOf(plain[1]!).map((module) => ({ module, names: [] }));
  }
  const from = /^from ([\w.]+) import ?\(?([\w ,*]*)\)?$/.exec(statement);
  if (from === null) return [];
  return [{ module: from[1]!, names: namesOf(from[2]!) }];
}

/** `a as b, c` -> a, c */
function namesOf(list: string): string[] {
  return list
    .split(',')
    .map((each) => each.trim().split(' ', 1)[0]!)
    .filter((name) => name !== '' && name !== '*');
}

function* logicalLines(text: string, dotted: Set<string>): Generator<Line> {
  let code = '';
  let from = 0;
  let brackets = 0;
  TOKEN.lastIndex = 0;
  for (let token = TOKEN.exec(text); token !== null; token = TOKEN.exec(text)) {
    const [found] = token;
    code += text.slice(from, token.index);
    from = TOKEN.lastIndex;
    if (found === '#') {
      const end = text.indexOf('\n', from);
      from = end === -1 ? text.length : end;
    } else if (found.startsWith('"') || found.startsWith("'")) {
      const end = endOfString(text, from, found);
      const value = text.slice(from, end);
      const isDotted = value.length <= DOTTED_CHARACTERS_MAX && DOTTED.test(value);
      if (isDotted && dotted.size < DOTTED_MAX) dotted.add(value);
      code += '""';
      from = Math.min(text.length, end + found.length);
    } else if (found === '\n') {
      if (brackets > 0) code += ' ';
      else {
        yield lineOf(code);
        code = '';
      }
    } else if (found.startsWith('\\')) code += ' ';
    else {
      brackets = '([{'.includes(found) ? brackets + 1 : Math.max(0, brackets - 1);
      code += found;
    }
    TOKEN.lastIndex = from;
  }
  yield lineOf(code + text.slice(from));
}

function lineOf(code: string): Line {
  const trimmed = code.trimStart();
  // With single blanks, no expression above can backtrack over them.
  return { indent: code.length - trimmed.length, code: trimmed.replace(/\s+/g, ' ').trimEnd() };
}

/** Where the closing quotes are; an unclosed short string ends with its line, a long one with the text. */
function endOfString(text: string, from: number, quotes: string): number {
  const stop = new RegExp(quotes.length === 3 ? `\\\\|${quotes}` : `\\\\|\\n|${quotes}`, 'g');
  stop.lastIndex = from;
  for (let found = stop.exec(text); found !== null; found = stop.exec(text)) {
    if (found[0] !== '\\') return found.index;
    stop.lastIndex = found.index + 2;
  }
  return text.length;
}
