/**
 * Goal: our wrapper is upstream's byte for byte, unwrapTar() unwraps theirs and Go's, and returns a file that is no
 * tar unchanged. Method: upstream's files taken apart and put together, hand-made headers,
 * every bit of the headers flipped.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ArrivingFile, MemoryFile, MemorySink } from '../../test/support/memory-file.js';
import { vectorBytes, vectorsMissing } from '../../test/support/vectors.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { HEAD_BYTES } from './layer-kind.js';
import { TarWrapperWriter, unwrapTar } from './tar-wrapper.js';

const PAYLOAD = Buffer.alloc(1310, 'payload');

function wrap(payload: Uint8Array): Buffer {
  const sink = new MemorySink();
  const writer = new TarWrapperWriter(sink);
  writer.write(payload);
  writer.finish();
  return sink.written;
}

function memberOf(tar: Uint8Array): Buffer {
  const { content } = unwrapTar(new MemoryFile(tar, 'sample.tar'), headOf(tar));
  const member = Buffer.alloc(content.sizeBytes);
  assert.ok(content.tryRead(member, 0));
  return member;
}

const headOf = (bytes: Uint8Array) => Buffer.from(bytes.subarray(0, HEAD_BYTES));

/** A ustar header as most programs write it: zero-padded octal, size in the header. */
function plainHeader(size: number, change: (header: Buffer) => void = () => {}): Buffer {
  const header = Buffer.alloc(512);
  header.write('overlaybd.commit', 0, 'latin1');
  header.write('0000444\0', 100, 'latin1');
  header.write(`${size.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  header.write('0', 156, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  change(header);
  const sum = header.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 32 : byte), 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

describe('TarWrapperWriter', () => {
  test('writes the fields of the published example', () => {
    const tar = wrap(PAYLOAD);
    assert.equal(tar.length, 4096);
    const text = (from: number, to: number) => tar.toString('latin1', from, to);
    assert.equal(text(0, 14), 'overlaybd.pax\0');
    assert.equal(text(124, 136), '         15 ');
    assert.equal(text(148, 156), '  5354 \0');
    assert.equal(text(512, 526), '13 size=1310\n\0');
    assert.equal(text(1024 + 100, 1024 + 108), '100644 \0');
    assert.equal(text(1024 + 148, 1024 + 156), ' 12025 \0');
    assert.ok(tar.subarray(1536, 1536 + 1310).equals(PAYLOAD));
    assert.ok(tar.subarray(1536 + 1310).every((byte) => byte === 0));
  });

  for (const name of [
    'l1.lz4.4k.tar.commit',
    'l1.zstd.4k.tar.commit',
    'l2.lz4.4k.tar.commit',
    'turbo/tar.z.tar.commit',
  ]) {
    test(`puts upstream’s ${name} together again`, { skip: vectorsMissing }, async () => {
      const tar = vectorBytes(name);
      assert.ok(wrap(memberOf(tar)).equals(tar));
    });
  }

  test('pads to 512 bytes, and not when there is nothing to pad', async () => {
    for (const size of [0, 1, 511, 512, 513, 1024]) {
      const tar = wrap(PAYLOAD.subarray(0, size));
      assert.equal(tar.length, 1536 + Math.ceil(size / 512) * 512 + 1024);
      if (size > 0) assert.equal(memberOf(tar).length, size);
    }
  });

  test('is no tar until it is finished', async () => {
    const sink = new MemorySink();
    const writer = new TarWrapperWriter(sink);
    writer.write(PAYLOAD);
    writer.writeAt(Buffer.from('P'), 0);
    assert.equal(memberOf(sink.written).length, 1536 + 1310, 'passes unchanged');
    writer.finish();
    assert.equal(memberOf(sink.written).toString('latin1', 0, 7), 'Payload');
  });
});

describe('unwrapTar()', () => {
  test('sees through a wrapper of one header', async () => {
    const tar = Buffer.concat([plainHeader(1310), PAYLOAD, Buffer.alloc(738 + 1024)]);
    assert.ok(memberOf(tar).equals(PAYLOAD));
  });

  test('passes any file but a POSIX tar unchanged', async () => {
    const gnu = plainHeader(10, (header) => header.write('ustar  \0', 257, 'latin1'));
    for (const bytes of [Buffer.alloc(0), PAYLOAD, Buffer.alloc(4096), gnu]) {
      const source = new MemoryFile(bytes);
      assert.deepEqual(unwrapTar(source, headOf(bytes)), { content: source, start: 0 });
    }
  });

  const broken = [
    { what: 'a member longer than the file', tar: plainHeader(1) },
    { what: 'a tar that ends in its headers', tar: wrap(PAYLOAD).subarray(0, 1535) },
    { what: 'a member cut short', tar: wrap(PAYLOAD).subarray(0, 1536 + 1309) },
    { what: 'a size that is not octal', tar: plainHeader(1, (h) => h.write('9', 126, 'latin1')) },
    { what: 'a record that lies about its length', tar: edited(512, '99') },
    { what: 'a record without a length', tar: edited(512, 'x') },
    { what: 'no member header', tar: edited(1024 + 257, 'USTAR') },
  ];
  for (const { what, tar } of broken) {
    test(`rejects ${what} as corrupt`, async () => {
      assert.throws(() => memberOf(tar), { code: ErrorCodes.Corrupt });
    });
  }

  test('says it cannot read a long pax header', async () => {
    const pax = plainHeader(513, (header) => header.write('x', 156, 'latin1'));
    assert.throws(() => memberOf(Buffer.concat([pax, Buffer.alloc(4096)])), {
      code: ErrorCodes.Unsupported,
    });
  });

  test('any flipped bit of the headers gives the member, no member, or an ObdError', async () => {
    const tar = wrap(PAYLOAD);
    for (let bit = 0; bit < 1536 * 8; bit += 3) {
      tar[bit >>> 3]! ^= 1 << (bit & 7);
      try {
        const member = memberOf(tar);
        const unwrapped = member.length === tar.length;
        assert.ok(unwrapped || member.length <= tar.length - 512);
      } catch (error) {
        assert.ok(error instanceof ObdError, String(error));
        assert.ok(hasCode(error, ErrorCodes.Corrupt) || hasCode(error, ErrorCodes.Unsupported));
      }
      tar[bit >>> 3]! ^= 1 << (bit & 7);
    }
  });

  test('shifts load() and invalidate() into the tar', async () => {
    const tar = wrap(PAYLOAD);
    const source = new ArrivingFile(tar);
    const { content: window } = unwrapTar(source, headOf(tar));
    assert.equal(window.tryRead(Buffer.alloc(4), 100), false);
    await window.load(100, 4);
    assert.ok(window.tryRead(Buffer.alloc(4), 100));
    assert.ok(window.invalidate(102, 2));
    assert.deepEqual(source.loads, [{ offset: 1636, length: 4 }]);
    assert.deepEqual(source.forgets, [{ offset: 1638, length: 2 }]);
    assert.throws(() => window.tryRead(Buffer.alloc(4), 1307), RangeError);
  });
});

function edited(at: number, text: string): Buffer {
  const tar = wrap(PAYLOAD);
  tar.write(text, at, 'latin1');
  return tar;
}
