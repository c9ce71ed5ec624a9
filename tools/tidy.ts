/**
 * Checks properties of the code itself that no linter rule covers. Run by `npm run check`.
 *
 * Every rule prints `path:line: problem, remedy`, so that a failure says what to do.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { layeringProblems, roomTableProblems } from './layering.js';

const ARCHITECTURE = 'docs/architecture.md';
const LINES_MAX = 500;
const VAGUE_NAMES = /^(utils?|helpers?|common|misc|shared|core|manager|index)\.ts$/;
const BANNED: ReadonlyArray<readonly [pattern: RegExp, remedy: string]> = [
  [/\bas any\b|: any\b/, 'use unknown and narrow it'],
  [/\bFIXME\b|\bXXX\b|\bTODO\b/, 'do it, or describe the limit in the header'],
  [/\.only\(/, 'remove the leftover .only'],
  [/throw new Error\(/, 'throw ObdError with a code, or assert() for a bug'],
  [/Buffer\.allocUnsafe\(/, 'use Buffer.alloc'],
];

export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

export function tidy(files: readonly SourceFile[]): string[] {
  const problems: string[] = [];
  for (const { path, text } of files) {
    const report = (line: number, problem: string) => problems.push(`${path}:${line}: ${problem}`);
    const lines = text.split('\n');
    if (lines.length > LINES_MAX) {
      const advice = 'find the seam and split';
      report(LINES_MAX, `${lines.length} lines, the limit is ${LINES_MAX}: ${advice}`);
    }
    if (VAGUE_NAMES.test(basename(path))) report(1, 'vague file name, name the concept');
    if (!/^(#!.*\n)?\/\*\*/.test(text) && !path.endsWith('.d.ts')) {
      report(1, 'no header comment, say what the module is for and what it guarantees');
    }
    if (!path.startsWith('src/')) continue;
    for (const [i, line] of lines.entries()) {
      for (const [pattern, remedy] of BANNED) {
        if (pattern.test(line)) report(i + 1, `banned ${pattern.source}, ${remedy}`);
      }
    }
  }
  return problems;
}

if (process.argv[1] === import.meta.filename) {
  const paths = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*.ts'], {
    encoding: 'utf8',
  });
  const files = paths.trim().split('\n');
  const own = files.filter((path) => !path.includes('/gen/'));
  const read = own.map((path) => ({ path, text: readFileSync(path, 'utf8') }));
  const problems = [
    ...tidy(read),
    ...layeringProblems(read),
    ...roomTableProblems(ARCHITECTURE, readFileSync(ARCHITECTURE, 'utf8')),
  ];
  process.stderr.write(problems.map((problem) => `${problem}\n`).join(''));
  process.exitCode = problems.length > 0 ? 1 : 0;
}
