/**
 * Goal: filters mean to us what they mean to containerd, and nonsense is refused with its place.
 * Method: expressions from containerd's own documentation and its snapshot client, against one set of fields.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ErrorCodes } from '../errors.js';
import { parseFilters } from './filter.js';

const REF = 'containerd.io/snapshot.ref';
const FIELDS: Readonly<Record<string, string>> = {
  name: 'sha256:abc',
  kind: 'committed',
  parent: '',
  'labels.foo': 'bar',
  'labels.with space': 'a b',
  [`labels.${REF}`]: 'sha256:0123',
};
const field = (path: readonly string[]) => FIELDS[path.join('.')];
const matches = (...texts: string[]) => parseFilters(texts)(field);

describe('filters', () => {
  const yes = [
    '',
    '  ',
    'name',
    'name==sha256:abc',
    'name == sha256:abc',
    'name=="sha256:abc"',
    'name=="sha256\\x3aabc"',
    'name=="sha256\\u003aabc"',
    'name=="sha256\\072abc"',
    'kind!=active',
    'kind~=^comm',
    'kind~=/^c.*d$/',
    'kind~=|^c.*d$|',
    'name~=/sha256:\\w+/',
    'nothing!=x',
    'nothing~=^$',
    'parent==""',
    'labels.foo',
    'labels.foo==bar',
    'labels."foo"==bar',
    `labels."${REF}"==sha256:0123,parent==""`,
    `labels."${REF}"==sha256:0123 , kind==committed`,
    'labels."with space"=="a b"',
  ];
  for (const text of yes) test(`match: ${text}`, () => assert.equal(matches(text), true));

  const no = [
    'nothing',
    'nothing==""',
    'labels',
    'labels.nothing',
    'name==sha256',
    'name!=sha256:abc',
    'kind~=^active',
    'name==sha256:abc,kind==active',
    `labels."${REF}"==sha256:0123,parent=="x"`,
  ];
  for (const text of no) test(`no match: ${text}`, () => assert.equal(matches(text), false));

  test('no filters match, and of several one is enough', () => {
    assert.equal(matches(), true);
    assert.equal(matches('kind==active', 'kind==committed'), true);
    assert.equal(matches('kind==active', 'kind==view'), false);
  });

  const nonsense = [
    'name==',
    'name=sha256:abc',
    'name===x',
    '==x',
    'name==a,',
    ',',
    'name=="a',
    'name==/a/',
    'name=="\\q"',
    'name=="\\777"',
    'name=="\\UFFFFFFFF"',
    'kind~="("',
    'name==a b',
    'labels.',
    'labels..a',
    'a'.repeat(70_000),
  ];
  for (const text of nonsense) {
    test(`refused: ${text.slice(0, 20)}`, () => {
      assert.throws(() => parseFilters([text]), { code: ErrorCodes.InvalidArgument });
    });
  }

  test('any value, quoted as Go does it, matches itself', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (value) => {
        const quoted = `"${[...Buffer.from(value)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}"`;
        assert.equal(
          parseFilters([`name==${quoted}`])(() => value),
          true,
        );
        assert.equal(
          parseFilters([`name!=${quoted}`])(() => `${value}!`),
          true,
        );
      }),
    );
  });

  test('no text makes anything but a filter or an InvalidArgument', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        try {
          parseFilters([text])(field);
        } catch (error) {
          assert.equal((error as { code?: string }).code, ErrorCodes.InvalidArgument);
        }
      }),
    );
  });
});
