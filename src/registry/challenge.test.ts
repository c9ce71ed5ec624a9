/**
 * Goal: every challenge that registries send is parsed, and no header makes the parser slow or wrong.
 * Method: challenges as seen in the field, and arbitrary text.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseChallenges } from './challenge.js';

const parsed = (header: string) =>
  parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);

test('parses challenges of real registries', () => {
  assert.deepEqual(
    parsed(
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull"',
    ),
    [
      [
        'bearer',
        {
          realm: 'https://auth.docker.io/token',
          service: 'registry.docker.io',
          scope: 'repository:library/debian:pull',
        },
      ],
    ],
  );
  assert.deepEqual(parsed('Basic realm="Registry Realm"'), [
    ['basic', { realm: 'Registry Realm' }],
  ]);
  assert.deepEqual(parsed('BEARER Realm=token , Service = "a, b"'), [
    ['bearer', { realm: 'token', service: 'a, b' }],
  ]);
});

test('parses several challenges in one header, with and without parameters', () => {
  assert.deepEqual(parsed('Negotiate, Basic realm="x", Bearer realm="y",scope="a,b"'), [
    ['negotiate', {}],
    ['basic', { realm: 'x' }],
    ['bearer', { realm: 'y', scope: 'a,b' }],
  ]);
  assert.deepEqual(parsed('Basic realm="say \\"hi\\""'), [['basic', { realm: 'say "hi"' }]]);
});

test('returns the valid challenges before a syntax error', () => {
  for (const header of ['', ' ', '=', '"', '\u00e4']) assert.deepEqual(parsed(header), []);
  assert.deepEqual(parsed('Bearer realm="unfinished'), [['bearer', {}]]);
});

test('parses any text in bounded time', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (text) => parseChallenges(text).length >= 0),
  );
  for (const piece of ['a="', 'a,', 'a=b,', 'a ', '\\"', '"\\']) {
    const startedMs = performance.now();
    parseChallenges(`Bearer x="${piece.repeat(100_000)}`);
    assert.ok(performance.now() - startedMs < 200, piece);
  }
});
