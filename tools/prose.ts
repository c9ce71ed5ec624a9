/**
 * Measures how much of the text that people read is written in riddles. Run by `npm run check`.
 *
 *     node dist/tools/prose.js            a table; exit status 1 and the sentences found if a share is too high
 *     node dist/tools/prose.js PATH...    the same, of files and folders, and the sentences found in any case
 *
 * A sentence ends at `.`, `:`, `;` or an empty line. The check counts two properties of sentences, and gives each
 * as a share of all sentences of one kind:
 *
 * - openers: a relative clause or an "of" stands in the place of the subject (OPENER);
 * - riddles: a pronoun stands in the place of an actor's name (RIDDLE).
 *
 * A low figure does not prove good prose; a high one proves bad prose. Headings are not counted: some of them ask.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { type StringLiteral, sourceText } from './source-text.js';
import type { SourceFile } from './tidy.js';

const PERCENT_MAX = 0.5;

const OPENER = /^(Who|Whoever|What|Whatever|Whose|Of|One that|Those|That which)\b/;
const RIDDLE =
  /\b(whoever|whatever|nobody|somebody|beside|meanwhile|goes on|is to be|of its own|debris)\b/i;

export const KINDS = [
  'comments',
  'log lines',
  'help',
  'messages',
  'test titles',
  'documents',
] as const;
export type Kind = (typeof KINDS)[number];

/** `check()` is how the suites of the transports declare a test. */
const TITLE_CALL = /\b(test|it|describe|suite|check)\($/;

/** Shorter pieces of comments and documents are headings and labels, and no sentences. */
const WORDS_MIN: Readonly<Record<Kind, number>> = {
  comments: 4,
  'log lines': 2,
  help: 2,
  messages: 4,
  'test titles': 2,
  documents: 4,
};

export interface Sentence {
  readonly kind: Kind;
  readonly path: string;
  readonly line: number;
  readonly text: string;
  readonly isOpener: boolean;
  readonly isRiddle: boolean;
}

/** All sentences of one file for people, in the order of its kinds. */
export function sentencesOf(file: SourceFile): Sentence[] {
  if (file.path.endsWith('.md')) return documentSentences(file);
  const { comments, strings } = sourceText(file.path, file.text);
  return [
    ...comments
      .filter(({ text }) => !/copyright|SPDX-License/i.test(text))
      .flatMap(({ text, line }) => split('comments', file.path, line, text)),
    ...strings.flatMap((literal) => {
      const kind = kindOf(file.path, literal);
      return kind === undefined ? [] : split(kind, file.path, literal.line, literal.text);
    }),
  ];
}

/** Judges a string by the call or the property around it; returns undefined for data of tests and tools. */
function kindOf(path: string, { calls, before }: StringLiteral): Kind | undefined {
  const inCall = (pattern: RegExp) => calls.some((call) => pattern.test(call));
  if (inCall(/(^|\.)(test|it|describe|suite|check)$/) && TITLE_CALL.test(before))
    return 'test titles';
  if (inCall(/\blog(ger)?\??\.(trace|debug|info|warn|error|fatal)$/)) return 'log lines';
  if (inCall(/\.(usage|example|epilogu?e?)$/) || /\b(describe|epilogu?e?|usage):$/.test(before))
    return 'help';
  const isProduct = /^(src|native)\//.test(path) && !path.endsWith('.test.ts');
  return isProduct && !/\b(from|import|include)\b[^;]*$/.test(before) ? 'messages' : undefined;
}

/** Paragraphs, list items and cells of Markdown, without code, headings and addresses. */
function documentSentences({ path, text }: SourceFile): Sentence[] {
  const sentences: Sentence[] = [];
  let paragraph: { line: number; text: string } | undefined;
  const end = () => {
    if (paragraph !== undefined) {
      sentences.push(...split('documents', path, paragraph.line, paragraph.text));
    }
    paragraph = undefined;
  };
  let isCode = false;
  for (const [i, line] of text.split('\n').entries()) {
    if (/^\s*```/.test(line)) isCode = !isCode;
    if (isCode || /^(#|\s*```|\s*$| {4})/.test(line)) {
      end();
      continue;
    }
    if (/^\s*([-*]|\d+\.|\|)\s/.test(line)) end();
    for (const [j, piece] of line.split(/\s*\|\s*/).entries()) {
      if (j > 0) end();
      paragraph ??= { line: i + 1, text: '' };
      paragraph.text += ` ${piece.replace(/^\s*([-*]|\d+\.)\s/, '')}`;
    }
  }
  end();
  return sentences;
}

function split(kind: Kind, path: string, line: number, text: string): Sentence[] {
  const pieces = text
    .replace(/\s+/g, ' ')
    .trim()
    .split(/(?<=[.:;])\s+/);
  const found: Sentence[] = [];
  for (const [i, piece] of pieces.entries()) {
    if (piece.split(' ').length < WORDS_MIN[kind]) continue;
    // Log lines and test titles begin with a small letter.
    const start =
      i === 0 && kind !== 'comments' ? piece.charAt(0).toUpperCase() + piece.slice(1) : piece;
    const isOpener = OPENER.test(start);
    found.push({ kind, path, line, text: piece, isOpener, isRiddle: RIDDLE.test(piece) });
  }
  return found;
}

/** One line for each kind: its sentences, and the shares of openers and riddles in per cent. */
export function proseTable(sentences: readonly Sentence[]): {
  readonly lines: readonly string[];
  /** The kinds with a share above PERCENT_MAX. */
  readonly failed: readonly Kind[];
} {
  const lines = [`${'kind'.padEnd(12)} sentences  openers  riddles`];
  const failed: Kind[] = [];
  for (const kind of KINDS) {
    const all = sentences.filter((sentence) => sentence.kind === kind);
    const percent = (some: readonly Sentence[]) => (100 * some.length) / Math.max(all.length, 1);
    const openers = percent(all.filter(({ isOpener }) => isOpener));
    const riddles = percent(all.filter(({ isRiddle }) => isRiddle));
    const [left, right] = [openers, riddles].map((share) => `${share.toFixed(2)} %`.padStart(9));
    lines.push(`${kind.padEnd(12)} ${String(all.length).padStart(9)}${left}${right}`);
    if (Math.max(openers, riddles) > PERCENT_MAX) failed.push(kind);
  }
  return { lines, failed };
}

function main(paths: readonly string[]): void {
  const patterns = ['*.ts', '*.js', '*.cc', '*.h', '*.c', '*.proto', '*.sh', '*.md'];
  const args = ['ls-files', '-co', '--exclude-standard', '--', ...patterns];
  const files = execFileSync('git', args, { encoding: 'utf8' }).trim().split('\n');
  const isMeasured = (path: string) =>
    paths.length === 0 ||
    paths.some((at) => path === at || path.startsWith(`${at.replace(/\/$/, '')}/`));
  const sentences = files
    .filter((path) => isMeasured(path) && !path.includes('/gen/'))
    .flatMap((path) => sentencesOf({ path, text: readFileSync(path, 'utf8') }));
  const { lines, failed } = proseTable(sentences);
  process.stdout.write(`${lines.join('\n')}\n`);
  for (const { kind, path, line, text, isOpener, isRiddle } of sentences) {
    if (!(isOpener || isRiddle) || !(paths.length > 0 || failed.includes(kind))) continue;
    process.stdout.write(`${path}:${line}: ${kind}: ${text}\n`);
  }
  for (const kind of failed) {
    process.stderr.write(`${kind}: more than ${PERCENT_MAX} % riddles, name the actor first\n`);
  }
  process.exitCode = failed.length > 0 ? 1 : 0;
}

if (process.argv[1] === import.meta.filename) main(process.argv.slice(2));
