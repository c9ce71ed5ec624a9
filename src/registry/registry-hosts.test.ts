/**
 * Goal: every name leads to the address and the protocol that the operator set, and to TLS otherwise.
 * Method: names by example.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { parseBlobUrl } from '../oci/blob-url.js';
import { RegistryHosts } from './registry-hosts.js';

test('uses TLS, except for this machine and listed hosts', () => {
  const hosts = new RegistryHosts(['plain.lan', 'one.lan:5000']);
  for (const [host, origin] of [
    ['docker.io', 'https://registry-1.docker.io'],
    ['ghcr.io', 'https://ghcr.io'],
    ['registry.lan:8443', 'https://registry.lan:8443'],
    ['registry.lan:443', 'https://registry.lan'],
    ['localhost', 'http://localhost'],
    ['localhost:5000', 'http://localhost:5000'],
    ['127.0.0.9:5000', 'http://127.0.0.9:5000'],
    ['[::1]:5000', 'http://[::1]:5000'],
    ['localhost:443', 'https://localhost'],
    ['localhost.evil.example', 'https://localhost.evil.example'],
    ['plain.lan', 'http://plain.lan'],
    ['PLAIN.lan:77', 'http://plain.lan:77'],
    ['one.lan:5000', 'http://one.lan:5000'],
    ['one.lan:5001', 'https://one.lan:5001'],
    ['one.lan', 'https://one.lan'],
  ] as const) {
    assert.equal(hosts.originOf(host), origin, host);
  }
});

test('the URL of blobs keeps a default port, which is part of the name', () => {
  const hosts = new RegistryHosts(['plain.lan:80', 'plain.lan:443'], { moved: 'moved.lan:443' });
  for (const [host, url] of [
    ['docker.io', 'https://registry-1.docker.io'],
    ['registry.lan', 'https://registry.lan'],
    ['registry.lan:443', 'https://registry.lan:443'],
    ['plain.lan:80', 'http://plain.lan:80'],
    ['plain.lan:443', 'http://plain.lan:443'],
    ['plain.lan', 'https://plain.lan'],
    ['localhost:80', 'http://localhost:80'],
    ['[::1]:443', 'https://[::1]:443'],
    ['moved', 'https://moved.lan:443'],
  ] as const) {
    const found = hosts.blobsUrlOf(host, 'team/app');
    assert.equal(found, `${url}/v2/team/app/blobs`);
    const { host: parsed, repository } = parseBlobUrl(found) ?? {};
    assert.deepEqual([parsed, repository], [host === 'moved' ? 'moved.lan:443' : host, 'team/app']);
    assert.equal(hosts.originOf(parsed ?? ''), hosts.originOf(host));
  }
});

test('an endpoint is the address of a name, over plain HTTP if name or endpoint is listed', () => {
  const hosts = new RegistryHosts(['plain.lan', 'mirror.lan:80'], {
    localhost: 'localhost:5000',
    'docker.io': 'mirror.lan:80',
    'plain.lan': '10.0.0.1:99',
    'far.example': 'near.example:8443',
  });
  for (const [host, origin] of [
    ['localhost', 'http://localhost:5000'],
    ['docker.io', 'http://mirror.lan'],
    ['plain.lan', 'http://10.0.0.1:99'],
    ['far.example', 'https://near.example:8443'],
  ] as const) {
    assert.equal(hosts.originOf(host), origin, host);
  }
  assert.equal(hosts.addressOf('localhost'), 'localhost:5000');
  assert.equal(hosts.addressOf('other'), 'other');
});

test('a login for a name is used on that host only', () => {
  const endpoints = {
    localhost: 'localhost:5000',
    'docker.io': 'mirror.lan:80',
    'far.example:1': 'far.example:2',
    'near.example': 'far.example',
    '[::1]': '[::1]:5000',
  };
  const hosts = new RegistryHosts([], endpoints);
  for (const [host, names] of [
    ['localhost', ['localhost', 'localhost:5000']],
    ['docker.io', ['mirror.lan:80']],
    ['far.example:1', ['far.example:1', 'far.example:2']],
    ['near.example', ['far.example']],
    ['[::1]', ['[::1]', '[::1]:5000']],
    ['other', ['other']],
  ] as const) {
    assert.deepEqual(hosts.loginNames(host), names, host);
  }
  const hub = new RegistryHosts([]).loginNames('docker.io');
  assert.deepEqual(hub, ['docker.io', 'registry-1.docker.io']);
});

test('no redirect leads from TLS to plain HTTP, unless the host is listed', () => {
  const hosts = new RegistryHosts(['listed.lan', 'port.lan:80']);
  for (const [from, to, may] of [
    ['https://a.example', 'https://b.example', true],
    ['https://a.example', 'http://a.example', false],
    ['https://a.example', 'http://127.0.0.1:80', false],
    ['https://a.example', 'http://listed.lan:99', true],
    ['https://a.example', 'http://port.lan', true],
    ['https://a.example', 'http://port.lan:80', true],
    ['https://a.example', 'http://port.lan:81', false],
    ['http://a.example', 'http://b.example', true],
    ['http://a.example', 'https://b.example', true],
    ['http://a.example', 'ftp://b.example', false],
    ['https://a.example', 'file:///etc/shadow', false],
  ] as const) {
    assert.equal(hosts.mayGoOn(new URL(from), new URL(to)), may, `${from} ${to}`);
  }
});

test('refuses text that is not a host', () => {
  for (const host of ['http://x', 'x/y', '', 'x:0', 'x:70000', 'a b']) {
    assert.throws(() => new RegistryHosts([host]), { code: ErrorCodes.InvalidArgument }, host);
    assert.throws(() => new RegistryHosts([], { x: host }), { code: ErrorCodes.InvalidArgument });
    assert.throws(() => new RegistryHosts([], { [host]: 'x' }), {
      code: ErrorCodes.InvalidArgument,
    });
  }
});

test('the answer of a mirror on this machine leaves the protocol of the registry known', () => {
  const hosts = new RegistryHosts([]);
  const host = '127.0.0.1:5000';
  const plain = hosts.endpointsOf(host, 'pull').find(({ origin }) => origin === `http://${host}`);
  hosts.answered(host, plain!);
  hosts.answered(host, { ...plain!, origin: 'http://127.0.0.1:6000', mirrorOf: host });
  assert.deepEqual(
    hosts.endpointsOf(host, 'pull').map(({ origin }) => origin),
    [`http://${host}`],
  );
});
