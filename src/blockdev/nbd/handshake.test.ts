/**
 * Goal: every option of the handshake is answered as the protocol document says, byte for byte; any other option is
 * refused without ending the handshake; how the bytes are cut changes nothing.
 * Method: bytes in, bytes out, no socket; the property cuts random handshakes at random places.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  CLIENT_FLAGS,
  contextData,
  GREETING,
  infoData,
  option,
  parseOptionReplies,
  text,
} from '../../../test/support/nbd-bytes.js';
import { type Exported, Handshake, type Progress } from './handshake.js';

/** The flags of a read-only disk. */
const FLAGS = 0x107;
const exports = new Map<string, Exported>([
  ['one', { sizeBytes: 1 << 20, flags: FLAGS }],
  ['zwei', { sizeBytes: 1 << 20, flags: FLAGS }],
]);

/** Runs a handshake; returns its progress, and all that the server said after the greeting. */
function talk(...pieces: Buffer[]): { progress: Progress<Exported>; said: Buffer } {
  const said: Buffer[] = [];
  const handshake = new Handshake<Exported>(exports, (bytes) => said.push(bytes));
  let progress: Progress<Exported> = 'more';
  for (const piece of pieces) {
    if (progress === 'more') {
      progress = handshake.push(piece);
    } else if (typeof progress === 'object') {
      const rest: Buffer = Buffer.concat([progress.rest, piece]);
      progress = Object.assign(progress, { rest });
    }
  }
  const all = Buffer.concat(said);
  assert.deepEqual(all.subarray(0, GREETING.length), GREETING);
  return { progress, said: all.subarray(GREETING.length) };
}

function typesOf(...pieces: Buffer[]): number[] {
  return parseOptionReplies(talk(CLIENT_FLAGS, ...pieces).said).map(({ type }) => type);
}

test('GO says size and flags, the block sizes if asked for, and begins', () => {
  const rest = Buffer.from('first request');
  const { progress, said } = talk(
    Buffer.concat([CLIENT_FLAGS, option(7, infoData('one', 3, 1)), rest]),
  );
  assert.equal(
    said.toString('hex'),
    [
      '0003e889045565a9 00000007 00000003 0000000c 0000 0000000000100000 0107',
      '0003e889045565a9 00000007 00000003 0000000e 0003 00000001 00001000 02000000',
      '0003e889045565a9 00000007 00000001 00000000',
    ]
      .join('')
      .replaceAll(' ', ''),
  );
  assert.ok(typeof progress === 'object');
  assert.deepEqual(progress.rest, rest);
  assert.deepEqual(progress.agreement, {
    chosen: exports.get('one'),
    structured: false,
    allocation: false,
  });
});

test('INFO is answered like GO and the handshake continues', () => {
  const { progress, said } = talk(CLIENT_FLAGS, option(6, infoData('one')));
  assert.deepEqual([progress, parseOptionReplies(said).length], ['more', 2]);
});

test('EXPORT_NAME is answered with zeroes unless both agreed to leave them out', () => {
  const short = talk(CLIENT_FLAGS, option(1, Buffer.from('zwei')));
  assert.equal(short.said.toString('hex'), '00000000001000000107');
  const long = talk(Buffer.from('00000001', 'hex'), option(1, Buffer.from('zwei')));
  assert.equal(long.said.length, 134);
  assert.equal(talk(CLIENT_FLAGS, option(1, Buffer.from('drei'))).progress, 'end');
});

test('LIST names every export', () => {
  const replies = parseOptionReplies(talk(CLIENT_FLAGS, option(3)).said);
  assert.deepEqual(
    replies.map(({ type, data }) => [type, data.toString('latin1')]),
    [
      [2, text('one').toString('latin1')],
      [2, text('zwei').toString('latin1')],
      [1, ''],
    ],
  );
});

test('ABORT is acknowledged and ends the handshake', () => {
  const { progress, said } = talk(CLIENT_FLAGS, option(2));
  assert.deepEqual([progress, parseOptionReplies(said)[0]?.type], ['end', 1]);
});

test('base:allocation can be listed, and set after structured replies', () => {
  assert.deepEqual(typesOf(option(10, contextData('one', 'base:allocation'))), [0x80000003]);
  assert.deepEqual(typesOf(option(8), option(9, contextData('one'))), [1, 4, 1]);
  assert.deepEqual(typesOf(option(8), option(9, contextData('one', 'base:'))), [1, 4, 1]);
  assert.deepEqual(typesOf(option(8), option(10, contextData('one', 'qemu:x'))), [1, 1]);
  const { progress } = talk(
    CLIENT_FLAGS,
    option(8),
    option(10, contextData('one', 'x:y', 'base:allocation')),
    option(7, infoData('one')),
  );
  assert.ok(typeof progress === 'object');
  assert.deepEqual([progress.agreement.structured, progress.agreement.allocation], [true, true]);
});

test('a context set for another export is not in force', () => {
  const { progress } = talk(
    CLIENT_FLAGS,
    option(8),
    option(10, contextData('zwei', 'base:allocation')),
    option(7, infoData('one')),
  );
  assert.ok(typeof progress === 'object');
  assert.equal(progress.agreement.allocation, false);
});

test('an option that cannot be granted is refused and the handshake continues', () => {
  const list = option(3);
  const go = (data: Buffer) => typesOf(option(7, data), list).slice(0, -3);
  assert.deepEqual(go(infoData('drei')), [0x80000006]);
  assert.deepEqual(go(Buffer.alloc(0)), [0x80000003]);
  assert.deepEqual(go(Buffer.from('ffffffff0000', 'hex')), [0x80000003]);
  assert.deepEqual(go(Buffer.concat([infoData('one'), Buffer.alloc(1)])), [0x80000003]);
  for (const number of [4, 5, 11, 0, 0xffffffff]) {
    assert.deepEqual(typesOf(option(number), list), [0x80000001, 2, 2, 1]);
  }
  assert.deepEqual(typesOf(option(3, Buffer.alloc(1))), [0x80000003]);
  assert.deepEqual(typesOf(option(8, Buffer.alloc(1))), [0x80000003]);
  const short = Buffer.concat([text('one'), Buffer.from('ffffffff', 'hex')]);
  assert.deepEqual(typesOf(option(8), option(10, short)), [1, 0x80000003]);
});

test('rejects more than 16 KiB of one option, and reads past it', () => {
  assert.deepEqual(
    typesOf(option(7, Buffer.alloc(16 * 1024 + 1)), option(3)).slice(0, 2),
    [0x80000009, 2],
  );
  assert.equal(talk(CLIENT_FLAGS, option(1, Buffer.alloc(16 * 1024 + 1))).progress, 'end');
});

test('other flags and other magics end it', () => {
  assert.equal(talk(Buffer.from('00000004', 'hex')).progress, 'end');
  assert.equal(talk(CLIENT_FLAGS, Buffer.from('GET / HTTP/1.1\r\n')).progress, 'end');
  assert.equal(talk(CLIENT_FLAGS, Buffer.from('IHAVENOT........')).progress, 'end');
});

test('however the bytes are cut, the answers are the same', () => {
  const name = fc.constantFrom('one', 'zwei', 'drei', '');
  const some = fc.oneof(
    fc.tuple(fc.constantFrom(6, 7), name).map(([number, n]) => option(number, infoData(n, 3, 0))),
    fc
      .tuple(fc.constantFrom(9, 10), name, fc.array(fc.constantFrom('base:', 'base:allocation')))
      .map(([number, n, queries]) => option(number, contextData(n, ...queries))),
    fc
      .tuple(fc.nat(12), fc.uint8Array({ maxLength: 40 }))
      .map(([number, data]) => option(number, data)),
    fc.constant(option(8)),
    fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
  );
  const cuts = fc.array(fc.nat(400), { maxLength: 12 });
  fc.assert(
    fc.property(fc.array(some, { maxLength: 6 }), cuts, (options, at) => {
      const all = Buffer.concat([CLIENT_FLAGS, ...options]);
      const places = [0, ...at.filter((cut) => cut < all.length).sort((a, b) => a - b), all.length];
      const pieces = places.slice(1).map((end, i) => all.subarray(places[i], end));
      assert.deepEqual(talk(...pieces), talk(all));
    }),
    { numRuns: 300 },
  );
});
