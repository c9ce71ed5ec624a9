/** Goal: comments and strings are found where they are, and nowhere else. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { sourceText } from './source-text.js';

const split = (text: string) => sourceText('a.ts', text);
const comments = (text: string) => split(text).comments.map(({ text: found }) => found);
const strings = (text: string) => split(text).strings.map(({ text: found }) => found);

describe('sourceText()', () => {
  test('joins line comments of consecutive lines, and only those', () => {
    assert.deepEqual(comments('// one\n// two\n\n// three'), ['one\ntwo', 'three']);
  });

  test('removes the marks of a block comment', () => {
    assert.deepEqual(comments('/**\n * One.\n *\n * Two.\n */\nlet a;'), ['\nOne.\n\nTwo.\n']);
  });

  test('gives the line of each comment and string', () => {
    const { comments: found, strings: texts } = split("'a';\n\n/* b */\nf(\n  'c')");
    assert.deepEqual(
      [...found, ...texts].map(({ line }) => line),
      [3, 1, 5],
    );
  });

  test('finds no comment in strings, templates and regular expressions', () => {
    assert.deepEqual(comments("const a = 'http://x', b = `//`, c = /\\/\\/['\"`]/;"), []);
    assert.deepEqual(comments('const half = a / b; // c / d'), ['c / d']);
  });

  test('finds strings within templates', () => {
    assert.deepEqual(strings('`a $' + "{b ? 'c' : `d $" + '{e}`} f`'), ['c', 'd …', 'a … f']);
  });

  test('joins strings added to one another', () => {
    assert.deepEqual(strings("f('a ' +\n  'b', 'c')"), ['a b', 'c']);
    assert.deepEqual(
      sourceText('a.cc', 'f("a "\n  "b"); int i = 1\'000; char c = \'"\';').strings.map(
        (s) => s.text,
      ),
      ['a b', '"'],
    );
  });

  test('names the calls around a string, and the code before it', () => {
    const [found] = split("if (x) this.#log.warn({ err }, 'gone');").strings;
    assert.deepEqual(found?.calls, ['this.#log.warn']);
    const [thrown, described] = split("new ObdError(Codes.Io, 'x'); a = { describe: 'y' }").strings;
    assert.deepEqual(thrown?.calls, ['new ObdError']);
    assert.match(described?.before ?? '', /describe:$/);
  });

  test('finds comments of shell scripts, without the interpreter line', () => {
    const { comments: found } = sourceText('a.sh', '#!/bin/sh\n# One.\n# Two.\necho "# three"\n');
    assert.deepEqual(found, [{ text: 'One.\nTwo.', line: 2 }]);
  });
});
