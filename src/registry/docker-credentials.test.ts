/**
 * Goal: the login that docker would use is found, and no message quotes a broken config or helper.
 * Method: config files as docker and podman write them, and helpers that are shell scripts.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ErrorCodes, ObdError } from '../errors.js';
import { DockerCredentials } from './docker-credentials.js';

const directory = mkdtempSync(join(tmpdir(), 'obd-logins-'));
const path = join(directory, 'config.json');
const pathBefore = process.env['PATH'];
before(() => {
  process.env['PATH'] = `${directory}:${pathBefore}`;
});
after(() => {
  process.env['PATH'] = pathBefore;
  rmSync(directory, { recursive: true });
});

const find = async (config: unknown, host: string) => {
  writeFileSync(path, typeof config === 'string' ? config : JSON.stringify(config));
  return await new DockerCredentials(path).find(host);
};
const auth = (text: string) => ({ auth: Buffer.from(text).toString('base64') });
const password = (username: string, secret: string) => ({
  kind: 'password',
  username,
  password: secret,
});

function helper(name: string, script: string): void {
  const program = join(directory, `docker-credential-${name}`);
  writeFileSync(program, `#!/bin/sh\n${script}\n`);
  chmodSync(program, 0o755);
}

test('without a file there is no login', async () => {
  assert.equal(await new DockerCredentials(join(directory, 'none')).find('x'), undefined);
  assert.equal(await find({}, 'x'), undefined);
  assert.equal(await find({ auths: { x: {} } }, 'x'), undefined);
});

test('finds logins by host, in any spelling of the key', async () => {
  const auths = {
    'a.example': auth('ann:secret:with:colons'),
    'https://b.example/v1/': { username: 'bob', password: 'b' },
    'http://c.example:5000': auth('cyd:c'),
    'https://index.docker.io/v1/': auth('hub:h'),
    'd.example/team': auth('no:no'),
    'e.example': { ...auth('ignored:x'), identitytoken: 'refresh' },
  };
  assert.deepEqual(await find({ auths }, 'a.example'), password('ann', 'secret:with:colons'));
  assert.deepEqual(await find({ auths }, 'b.example'), password('bob', 'b'));
  assert.deepEqual(await find({ auths }, 'c.example:5000'), password('cyd', 'c'));
  assert.equal(await find({ auths }, 'c.example'), undefined);
  assert.deepEqual(await find({ auths }, 'docker.io'), password('hub', 'h'));
  assert.equal(await find({ auths }, 'd.example'), undefined);
  assert.deepEqual(await find({ auths }, 'e.example'), {
    kind: 'identity-token',
    token: 'refresh',
  });
});

test('an invalid file is named, not quoted', async () => {
  for (const config of [
    '{"auths": {"x": {"auth": "secret"',
    { auths: { x: { auth: 'c2VjcmV0' } } },
    { auths: { x: { password: ['secret'] } } },
    { credHelpers: { x: '../secret' } },
  ]) {
    await assert.rejects(find(config, 'x'), (error: unknown) => {
      assert.ok(error instanceof ObdError);
      assert.equal(error.code, ErrorCodes.InvalidArgument);
      const quoted = /"\.\.\/secret" is not the name/.test(error.message);
      return quoted || !error.message.includes('secret');
    });
  }
});

test('asks a helper for its hosts, and the store for all others', async () => {
  helper('one', `read -r s; echo "{\\"Username\\":\\"one\\",\\"Secret\\":\\"for $s\\"}"`);
  helper('all', `read -r s; echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"for $s\\"}"`);
  const config = { credHelpers: { 'a.example': 'one' }, credsStore: 'all' };
  assert.deepEqual(await find(config, 'a.example'), password('one', 'for a.example'));
  assert.deepEqual(await find(config, 'docker.io'), {
    kind: 'identity-token',
    token: 'for https://index.docker.io/v1/',
  });
});

test('falls back to the file if a helper has no login; a failed helper is an error without its output', async () => {
  helper('empty', 'echo "credentials not found in native keychain"; exit 1');
  const auths = { x: auth('from:file') };
  assert.deepEqual(await find({ credsStore: 'empty', auths }, 'x'), password('from', 'file'));
  helper('broken', 'echo "secret"; echo secret >&2; exit 3');
  helper('garbage', 'echo "secret, not JSON"');
  helper('half', `echo '{"Secret":"secret"}'`);
  helper('killed', 'kill -9 $$');
  helper('endless', 'exec yes secret');
  for (const name of ['broken', 'garbage', 'half', 'killed', 'endless', 'missing']) {
    await assert.rejects(find({ credsStore: name, auths }, 'x'), (error: unknown) => {
      assert.ok(error instanceof ObdError);
      assert.equal(error.code, ErrorCodes.Host, name);
      return !error.message.includes('secret') && error.message.includes(`credential-${name}`);
    });
  }
});
