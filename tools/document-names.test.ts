/**
 * Goal: documents and comments name files that exist, docs/hacking.md and docs/glossary.md name symbols that exist where they
 * say, and the log lines that documents list are logged.
 * Method: every path and every identifier between backticks is looked up in the files that git knows. A block (paragraph, list
 * item, row of a table) that names source files must find each of its identifiers in one of them; any other block, in
 * one file of the repository. `NAME` in a path stands for a name that the reader picks.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, test } from 'node:test';

const FOLDERS = 'src|test|tools|docs|native|scripts|bench|proto|changelog|systemd';
const PATH = new RegExp(`^(?:(?:${FOLDERS})/[\\w@./-]*|[A-Z]+\\.md|[\\w-]+\\.json)$`);
/** `Symbol`, `CONSTANT`, `method()`, `#private()`, `Class.method()`. */
const IDENTIFIER = /^#?[A-Za-z_$][\w$]*(?:\.#?[\w$]+)?(?:\(\))?$/;
const SOURCE = /\.(?:ts|js|cc|h|sh|proto)$/;
/** Its identifiers are checked, too. */
const WITH_SYMBOLS = ['docs/hacking.md', 'docs/glossary.md'];

const SELF = 'tools/document-names.test.ts';
/** In a comment of a source file: a path from the root of the repository. */
const PATH_IN_COMMENT =
  /(?<![\w./-])(?:src|test|tools|native|scripts|docs\/adr|docs\/formats)\/[\w./-]+\.(?:ts|js|md|cc|h|sh)\b/g;

const ROOT = repositoryRoot();
const FILES = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
  cwd: ROOT,
  encoding: 'utf8',
})
  .trim()
  .split('\n')
  .filter((path) => existsSync(join(ROOT, path)));

function repositoryRoot(): string {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  return root;
}

const texts = new Map<string, string>();
function textOf(path: string): string {
  let text = texts.get(path);
  if (text === undefined) {
    text = readFileSync(join(ROOT, path), 'utf8');
    texts.set(path, text);
  }
  return text;
}

interface Block {
  readonly line: number;
  readonly text: string;
}

/** Paragraphs, list items and rows, without code blocks: what is in those is not checked. */
function blocksOf(text: string): Block[] {
  const blocks: Block[] = [];
  let isCode = false;
  let isOpen = false;
  for (const [i, line] of text.split('\n').entries()) {
    if (line.startsWith('```')) isCode = !isCode;
    if (isCode || line.startsWith('```') || /^(?: {4}|\t)\S/.test(line) || line.trim() === '') {
      isOpen = false;
      continue;
    }
    const last = blocks.at(-1);
    if (last === undefined || !isOpen || /^\s*(?:[*|#]|[0-9]+\. )/.test(line)) {
      blocks.push({ line: i + 1, text: line });
    } else {
      blocks[blocks.length - 1] = { line: last.line, text: `${last.text} ${line.trim()}` };
    }
    isOpen = true;
  }
  return blocks;
}

function filesAt(path: string): string[] {
  const plain = path.replace(/\/$/, '');
  return FILES.filter((file) => file === plain || file.startsWith(`${plain}/`));
}

function hasWords(path: string, words: readonly string[]): boolean {
  const text = textOf(path);
  return words.every((word) => new RegExp(`(?<![\\w$])${word}(?![\\w$])`).test(text));
}

/** The anchors of a document's headings, as GitHub makes them. */
function anchorsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => {
    const words = heading.replace(/\]\([^)]*\)/g, '').toLowerCase();
    return `#${words.replace(/[^\w\- ]/g, '').replaceAll(' ', '-')}`;
  });
}

/** Lists the names in a document that lead nowhere, one line each. */
function problemsOf(path: string, text: string, withSymbols: boolean): string[] {
  const problems: string[] = [];
  for (const block of blocksOf(text)) {
    const report = (what: string) => problems.push(`${path}:${block.line}: ${what}`);
    for (const [, target = '', anchor] of block.text.matchAll(/\]\(([^)#\s]*)(#[^)\s]*)?\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const found = target === '' ? path : normalize(join(dirname(path), target));
      if (!existsSync(join(ROOT, found))) report(`no ${target}`);
      else if (anchor !== undefined && !anchorsOf(textOf(found)).includes(anchor))
        report(`no ${target}${anchor}`);
    }
    const named = [...block.text.matchAll(/`([^`]+)`/g)].map(([, token = '']) => token);
    const sources: string[] = [];
    for (const token of named.filter((each) => PATH.test(each) && !each.includes('NAME'))) {
      const found = filesAt(token);
      if (found.length === 0) report(`no file ${token}`);
      sources.push(...found.filter((file) => SOURCE.test(file)));
    }
    if (!withSymbols) continue;
    const places =
      sources.length > 0 ? sources : FILES.filter((file) => SOURCE.test(file) && file !== SELF);
    for (const token of named.filter((each) => IDENTIFIER.test(each) && !PATH.test(each))) {
      const words = token.replace('()', '').replaceAll('#', '').split('.');
      if (words.some((word) => word === 'NAME')) continue;
      if (places.some((place) => hasWords(place, words))) continue;
      report(`no ${token} in ${sources.length > 0 ? sources.join(', ') : 'any source file'}`);
    }
  }
  return problems;
}

describe('names in documents', () => {
  for (const path of FILES.filter(
    (file) => file.endsWith('.md') && !file.startsWith('changelog/'),
  )) {
    test(`${path} names files${WITH_SYMBOLS.includes(path) ? ' and symbols' : ''} that exist`, () => {
      assert.deepEqual(problemsOf(path, textOf(path), WITH_SYMBOLS.includes(path)), []);
    });
  }

  test('docs/hacking.md answers each of its three questions with at most three files', () => {
    const [, section = ''] = textOf('docs/hacking.md').split('## Three answers\n');
    const answers = section
      .split(/^## /m)[0]!
      .split(/^\*\*.*\?\*\*$/m)
      .slice(1);
    assert.equal(answers.length, 3);
    for (const answer of answers) {
      const named = [...answer.matchAll(/`([^`]+)`/g)].map(([, token = '']) => token);
      const files = new Set(
        named.filter((token) => PATH.test(token) && !token.endsWith('.test.ts')),
      );
      assert.ok(files.size >= 1 && files.size <= 3, [...files].join(', '));
    }
  });

  test('log lines that documents list are logged', () => {
    const code = FILES.filter((file) => /^src\/.*(?<!\.test)\.ts$/.test(file))
      .map(textOf)
      .join('\n');
    const missing: string[] = [];
    let listed = 0;
    for (const path of FILES.filter((file) => file.startsWith('docs/') && file.endsWith('.md'))) {
      let isLog = false;
      for (const line of textOf(path).split('\n')) {
        if (!line.startsWith('|')) isLog = false;
        if (line.startsWith('| `msg` |')) isLog = true;
        const [, first = ''] = line.split('|');
        if (!isLog || /^[-\s]*$/.test(first) || first.includes('`msg`')) continue;
        for (const [, event = ''] of first.matchAll(/`([^`]+)`/g)) {
          listed++;
          // A single capital letter stands for a name.
          const text = event
            .replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
            .replaceAll(/\b[A-Z]\b/g, '\\S+');
          if (!new RegExp(`['"\`]${text}['"\`]`).test(code)) missing.push(`${path}: ${event}`);
        }
      }
    }
    assert.ok(listed > 20);
    assert.deepEqual(missing, []);
  });

  test('comments of source files name files that exist', () => {
    const missing: string[] = [];
    for (const path of FILES.filter((file) => SOURCE.test(file) && file !== SELF)) {
      for (const [i, line] of textOf(path).split('\n').entries()) {
        if (!/^\s*(?:\*|\/\*\*|\/\/|#)/.test(line)) continue;
        for (const [named] of line.matchAll(PATH_IN_COMMENT)) {
          if (!existsSync(join(ROOT, named))) missing.push(`${path}:${i + 1}: no ${named}`);
        }
      }
    }
    assert.deepEqual(missing, []);
  });

  test('the check finds a missing file, a missing symbol, a symbol of another file and a dead link', () => {
    const text = [
      '* `src/attic.ts`',
      '* `src/errors.ts`: `ObdError`, `NoSuchThing`',
      '* `src/errors.ts`: `LayerStack`',
      '* `LayerStack` and `NoSuchThing`',
      '* [gone](gone.md), [here](hacking.md), [gone](#attic), [here](testing.md#transports)',
      '    `src/code.ts` in a code block',
      '* `src/blockdev/NAME/NAME-transport.ts`',
    ].join('\n');
    assert.deepEqual(problemsOf('docs/hacking.md', text, true), [
      'docs/hacking.md:1: no file src/attic.ts',
      'docs/hacking.md:2: no NoSuchThing in src/errors.ts',
      'docs/hacking.md:3: no LayerStack in src/errors.ts',
      'docs/hacking.md:4: no NoSuchThing in any source file',
      'docs/hacking.md:5: no gone.md',
      'docs/hacking.md:5: no #attic',
    ]);
  });
});
