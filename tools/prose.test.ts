/** Goal: each kind of text for people is found in each kind of file, and riddles are counted in it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { proseTable, sentencesOf } from './prose.js';

const found = (path: string, text: string) =>
  sentencesOf({ path, text }).map(({ kind, text: sentence }) => `${kind}: ${sentence}`);

describe('sentencesOf()', () => {
  test('splits comments of TypeScript, C++ and shell at full stops and empty lines', () => {
    const block =
      '/**\n * The lock is held. It stays\n * locked for long:\n *\n *     a table without end\n */';
    assert.deepEqual(found('src/a.ts', block), [
      'comments: The lock is held.',
      'comments: It stays locked for long:',
      'comments: a table without end',
    ]);
    assert.deepEqual(found('native/a.cc', '// Frees the mapped buffer.\n'), [
      'comments: Frees the mapped buffer.',
    ]);
    assert.deepEqual(found('scripts/a.sh', '# Installs all the packages.\n'), [
      'comments: Installs all the packages.',
    ]);
  });

  const strings: Array<[code: string, kind: string | undefined]> = [
    ["this.#log.warn({ id }, 'two words');", 'log lines'],
    ["yargs.usage('two words');", 'help'],
    ["yargs.option('a', { describe: 'two words' });", 'help'],
    ["throw new ObdError(Codes.Io, 'cannot open the file');", 'messages'],
    ["const remedy = 'close the other file';", 'messages'],
    ["test('two words', () => {});", 'test titles'],
    ["check('two words', () => {});", 'test titles'],
    ["import { a } from 'four words in path';", undefined],
  ];
  for (const [code, kind] of strings) {
    test(`knows ${kind ?? 'no kind'} in ${code}`, () => {
      const text = code.split("'").find((piece) => /^\w[\w ]* \w+$/.test(piece));
      const should = kind === undefined ? [] : [`${kind}: ${text}`];
      assert.deepEqual(found('src/a.ts', code), should);
    });
  }

  test('takes strings of tests and tools for data', () => {
    assert.deepEqual(found('src/a.test.ts', "const a = 'nobody is told of it';"), []);
    assert.deepEqual(found('tools/a.ts', "const a = 'nobody is told of it';"), []);
  });

  test('reads paragraphs, items and cells of Markdown, not headings and code', () => {
    const text = [
      '# What is needed at first',
      'One line and',
      'another of it.',
      '- an item of a list',
      '| a cell of a table | another cell of it |',
      '    indented code is no prose',
      '```',
      'fenced code is no prose',
      '```',
    ].join('\n');
    assert.deepEqual(found('README.md', text), [
      'documents: One line and another of it.',
      'documents: an item of a list',
      'documents: a cell of a table',
      'documents: another cell of it',
    ]);
  });
});

describe('proseTable()', () => {
  const tableOf = (path: string, text: string) => proseTable(sentencesOf({ path, text }));
  const plain = '// The cache holds the chunk.\n\n'.repeat(199);

  test('gives the shares of each kind, and passes up to the limit', () => {
    const { lines, failed } = tableOf('src/a.ts', `${plain}// Of that, V8 sees little.\n`);
    assert.match(lines.join('\n'), /^comments +200 +0\.50 % +0\.00 %$/m);
    assert.deepEqual(failed, []);
  });

  test('fails on more openers or riddles than that', () => {
    const openers = `${plain}// What arrives is kept.\n\n// Those are never kept.\n`;
    assert.deepEqual(tableOf('src/a.ts', openers).failed, ['comments']);
    const riddles = `${plain}// The lock tells nobody else.\n\n// It waits meanwhile for it.\n`;
    assert.deepEqual(tableOf('src/a.ts', riddles).failed, ['comments']);
    assert.deepEqual(tableOf('src/a.ts', "log.info('what was kept');").failed, ['log lines']);
  });
});
