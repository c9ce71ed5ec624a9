/** Goal: each rule fires on the code it is for, and is silent on code that is right. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tidy } from './tidy.js';

const HEADER = '/** What it guarantees. */\n';
const check = (path: string, text: string) => tidy([{ path, text: HEADER + text }]);

describe('tidy()', () => {
  const bad: Array<[name: string, path: string, text: string, says: RegExp]> = [
    ['a vague file name', 'src/io/utils.ts', '', /vague file name/],
    ['a file past the limit', 'src/io/a.ts', '\n'.repeat(500), /find the seam/],
    ['a bare Error', 'src/io/a.ts', "throw new Error('x')", /banned/],
  ];
  for (const [name, path, text, says] of bad) {
    test(`reports ${name}`, () => {
      assert.match(check(path, text).join('\n'), says);
    });
  }

  test('reports a file without a header comment', () => {
    assert.match(tidy([{ path: 'src/io/a.ts', text: 'export {};' }]).join('\n'), /no header/);
  });
});
