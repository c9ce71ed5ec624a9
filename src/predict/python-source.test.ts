/** Goal: exactly the imports that run when a module is imported. Method: sources with each form, and texts made to be slow. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { readPython } from './python-source.js';

function namesIn(text: string, isMain = false): string[] {
  return readPython(text, isMain).imports.map(({ module, names }) => [module, ...names].join(' '));
}

describe('readPython()', () => {
  test('finds all forms of import', () => {
    const text = `
"""Doc: import nothing"""
import a, b.c as d
from e import (  # comment
    f as g,
    h,
)
from . import i
from ..j.k import *
try: import l
except ImportError: import m
if x: from n import o
import p; import q
class C:
    import r
s = 'import t' \\
    "import u"
`;
    assert.deepEqual(namesIn(text), [
      'a',
      'b.c',
      'e f h',
      '. i',
      '..j.k',
      'l',
      'n o',
      'p',
      'q',
      'r',
    ]);
  });

  test('leaves out functions, except blocks, type checks, and the main block of a module', () => {
    const text = `
def f():
    import a

    import b
async def g(): import c
try:
    import d
except ImportError:
    import e
if TYPE_CHECKING:
    import f
if __name__ == '__main__':
    import g
import h
`;
    assert.deepEqual(namesIn(text), ['d', 'h']);
    // A script runs its own functions.
    assert.deepEqual(namesIn(text, true), ['a', 'b', 'd', 'g', 'h']);
  });

  test('finds dotted names in constants', () => {
    const { dotted } = readPython(`x = ["a.b.C", 'a.b:c', "not. one", "plain", """d.e"""]`, false);
    assert.deepEqual(dotted, ['a.b.C', 'a.b:c', 'd.e']);
  });

  test('takes time in proportion to the text', () => {
    const length = 1 << 20;
    const begin = performance.now();
    for (const piece of [
      '"',
      "'''",
      '(',
      'import ',
      'from a import (',
      'if a:',
      '\\',
      '\\\n',
      ' ',
      'a.',
      '#',
      'import a, ',
    ]) {
      readPython(piece.repeat(length / piece.length), false);
    }
    // A quadratic one would take hours.
    assert.ok(performance.now() - begin < 20_000);
  });
});
