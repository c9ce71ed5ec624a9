/**
 * Goal: a configuration is applied as a whole, or refused with its file, the key and the remedy.
 * Method: real files, and a schema with every kind of value that the daemons' schemas have.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import * as z from 'zod';
import { ErrorCodes, ObdError } from '../errors.js';
import { readConfigFile } from './config-file.js';
import { absolutePath, byteAmount, logLevel, registryTable } from './config-values.js';

const directory = mkdtempSync(join(tmpdir(), 'obd-config-'));
after(() => rmSync(directory, { recursive: true }));

const schema = z.strictObject({
  socket: absolutePath.default('/run/x.sock'),
  root: absolutePath.default('/var/lib/x'),
  cache_size: byteAmount.default(1 << 20),
  log_level: logLevel.default('info'),
  registry: registryTable.prefault({}),
});

let files = 0;

async function read(text: string): Promise<z.infer<typeof schema>> {
  const path = join(directory, `${files++}.toml`);
  writeFileSync(path, text);
  return await readConfigFile(path, schema);
}

async function assertRefused(text: string, ...words: string[]): Promise<void> {
  await assert.rejects(read(text), (error) => {
    assert.ok(error instanceof ObdError, String(error));
    assert.equal(error.code, ErrorCodes.InvalidArgument);
    for (const word of [directory, ...words]) {
      assert.ok(error.message.includes(word), `${error.message}\nlacks ${word}`);
    }
    return true;
  });
}

test('an empty file gives every key its default', async () => {
  assert.deepEqual(await read(''), {
    socket: '/run/x.sock',
    root: '/var/lib/x',
    cache_size: 1 << 20,
    log_level: 'info',
    registry: { plain_http: [], hosts: {}, hosts_dir: '/etc/containerd/certs.d' },
  });
});

test('every key of the file overrides its default', async () => {
  const config = await read(`
    cache_size = "1.5 GiB"
    log_level = "debug"
    [registry]
    plain_http = ["a:5000"]
    [registry.hosts]
    "a.example" = "a.example:5000"
  `);
  assert.equal(config.cache_size, 1.5 * 2 ** 30);
  assert.equal(config.log_level, 'debug');
  assert.deepEqual(config.registry, {
    plain_http: ['a:5000'],
    hosts: { 'a.example': 'a.example:5000' },
    hosts_dir: '/etc/containerd/certs.d',
  });
});

test('an unknown key is refused with the list of known keys', async () => {
  await assertRefused('sokcet = "/x"', '"sokcet"', 'socket, root, cache_size');
  await assertRefused('[registry]\nmirrors = []', '"registry.mirrors"', 'plain_http, hosts');
  await assertRefused('[registri]\nx = 1', '"registri"');
});

test('a value of the wrong type is refused by its key', async () => {
  await assertRefused('socket = 5', '"socket"', 'string');
  await assertRefused('socket = "x.sock"', '"socket"', 'absolute');
  await assertRefused('log_level = "loud"', '"log_level"', 'debug');
  await assertRefused('registry = 1', '"registry"');
  await assertRefused('[registry]\nplain_http = "a"', '"registry.plain_http"', 'array');
  await assertRefused('[registry.hosts]\n"a.b" = 1', `"registry.hosts.'a.b'"`, 'string');
});

test('one error lists all problems', async () => {
  await assertRefused('a = 1\nb = 2\nroot = 3', '"a"', '"b"', '"root"');
});

test('sizes', async () => {
  const sizes = { '"1 KiB"': 1024, '"1kB"': 1000, '7': 7, '"7"': 7, '"0 B"': 0, '"2TiB"': 2 ** 41 };
  for (const [text, bytes] of Object.entries(sizes)) {
    assert.equal((await read(`cache_size = ${text}`)).cache_size, bytes);
  }
  for (const text of ['"1 XB"', '"-1 B"', '""', '"GiB"', '1.5', '-1', 'true', '"1e3 B"', 'inf']) {
    await assertRefused(`cache_size = ${text}`, '"cache_size"', '10 GiB');
  }
});

test('a syntax error has its line and column', async () => {
  await assertRefused('socket = "/x"\nroot = [', 'line 2', 'column');
  await assertRefused('root = "/a"\nroot = "/b"', 'line 2');
});

test('a missing file is an error only if it was asked for', async () => {
  const path = join(directory, 'none.toml');
  await assert.rejects(readConfigFile(path, schema), { code: ErrorCodes.NotFound });
  const config = await readConfigFile(path, schema, { mayBeMissing: true });
  assert.equal(config.socket, '/run/x.sock');
  await assert.rejects(readConfigFile(directory, schema, { mayBeMissing: true }), {
    code: ErrorCodes.Io,
  });
});

test('a FIFO is refused without blocking', async () => {
  const path = join(directory, 'pipe.toml');
  execFileSync('mkfifo', [path]);
  await assert.rejects(readConfigFile(path, schema), {
    code: ErrorCodes.Io,
    message: `Cannot read the configuration "${path}": it is not a regular file`,
  });
});
