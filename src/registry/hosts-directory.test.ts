/**
 * Goal: the keys of hosts.toml have the same meaning as in containerd, and errors name a broken file.
 * Method: files by example, from containerd's, nerdctl's and kubelet's documents.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { rootCertificates } from 'node:tls';
import { ErrorCodes } from '../errors.js';
import { urlAt } from './endpoint.js';
import { HostsDirectory } from './hosts-directory.js';
import { RegistryHosts } from './registry-hosts.js';

const root = mkdtempSync(join(tmpdir(), 'obd-hosts-'));
after(() => rmSync(root, { recursive: true }));
let directories = 0;
const [PEM = '', OTHER_PEM = ''] = rootCertificates;

function written(files: Readonly<Record<string, string>>): string {
  const directory = join(root, String(directories++));
  for (const [name, text] of Object.entries(files)) {
    const path = join(directory, name);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, text);
  }
  return directory;
}

function addresses(directory: string, host: string): string[] {
  const hosts = new RegistryHosts([], {}, directory);
  const blob = new URL(`${hosts.originOf(host)}/v2/team/app/blobs/x`);
  return hosts.endpointsOf(host, 'pull').map((endpoint) => urlAt(endpoint, blob).href);
}

test('mirrors are listed in the order of the file, the registry last', () => {
  const directory = written({
    'docker.io/hosts.toml': `
      server = "https://registry-1.docker.io"
      [host."http://10.98.0.1:5000"]
        capabilities = ["Pull", "resolve", "referrers"]
      [host."https://harbor.lan/v2/hub"]
        override_path = true
      [host."https://version.lan/hub/v2/"]
      [host."https://path.lan/hub"]
      [host."https://whole.lan/api"]
        override_path = true
      [host."https://push.lan"]
        capabilities = ["push"]`,
  });
  assert.deepEqual(addresses(directory, 'docker.io'), [
    'http://10.98.0.1:5000/v2/team/app/blobs/x?ns=docker.io',
    'https://harbor.lan/v2/hub/team/app/blobs/x?ns=docker.io',
    'https://version.lan/hub/v2/team/app/blobs/x?ns=docker.io',
    'https://path.lan/hub/v2/team/app/blobs/x?ns=docker.io',
    'https://whole.lan/api/team/app/blobs/x?ns=docker.io',
    'https://registry-1.docker.io/v2/team/app/blobs/x',
  ]);
});

test('the file decides on TLS for a registry at a port', () => {
  const directory = written({
    'plain.lan:5000/hosts.toml': 'server = "http://plain.lan:5000"',
    'host.lan:5000/hosts.toml': '[host."http://host.lan:5000"]\ncapabilities = ["pull"]',
    'named.lan_5000_/hosts.toml': 'server = "named.lan:6000"',
  });
  const blob = '/v2/team/app/blobs/x';
  assert.deepEqual(addresses(directory, 'plain.lan:5000'), [`http://plain.lan:5000${blob}`]);
  assert.deepEqual(addresses(directory, 'host.lan:5000'), [
    `http://host.lan:5000${blob}`,
    `https://host.lan:5000${blob}`,
  ]);
  const elsewhere = [`https://named.lan:6000${blob}?ns=named.lan%3A5000`];
  assert.deepEqual(addresses(directory, 'named.lan:5000'), elsewhere);
  assert.deepEqual(addresses(directory, 'plain.lan'), [`https://plain.lan${blob}`]);
  const hosts = new RegistryHosts([], {}, directory);
  assert.deepEqual(hosts.portsOf('plain.lan'), ['plain.lan:5000']);
  assert.deepEqual(hosts.portsOf('named.lan'), ['named.lan:5000']);
  assert.deepEqual(hosts.portsOf('lan'), []);
});

test('_default applies to every host without a directory', () => {
  const directory = written({
    '_default/hosts.toml': '[host."https://mirror.lan"]',
    'own.lan/hosts.toml': '',
  });
  assert.deepEqual(addresses(directory, 'ghcr.io'), [
    'https://mirror.lan/v2/team/app/blobs/x?ns=ghcr.io',
    'https://ghcr.io/v2/team/app/blobs/x',
  ]);
  assert.deepEqual(addresses(directory, 'own.lan'), ['https://own.lan/v2/team/app/blobs/x']);
});

test('logins, headers and authorities apply to their own host only', () => {
  const directory = written({
    'docker.io/ca.pem': PEM,
    'docker.io/hosts.toml': `
      header = { x-own = "1" }
      [host."https://mirror.lan:8443"]
        ca = "ca.pem"
        skip_verify = true
      [host."https://mirror.lan:8443".header]
        X-Mirror = ["a", "b"]`,
  });
  const [mirror, itself] = new RegistryHosts([], {}, directory).endpointsOf('docker.io', 'pull');
  assert.deepEqual(mirror?.loginHosts, ['mirror.lan:8443']);
  assert.deepEqual(mirror?.headers, { 'x-mirror': 'a, b' });
  assert.deepEqual(mirror?.tls, { ca: [PEM], skipVerify: true });
  assert.deepEqual(itself?.loginHosts, ['docker.io', 'registry-1.docker.io']);
  assert.deepEqual(itself?.headers, { 'x-own': '1' });
  assert.equal(itself?.tls, undefined);
});

test('certificates in a directory without hosts.toml are trusted', () => {
  const bundle = `a comment\n${PEM}\n${OTHER_PEM}\n`;
  const directory = written({ 'crt.lan/ca.crt': bundle, 'crt.lan/client.key': 'KEY' });
  const [itself] = new RegistryHosts([], {}, directory).endpointsOf('crt.lan', 'pull');
  assert.deepEqual(itself?.tls, { ca: [PEM, OTHER_PEM], skipVerify: false });
});

test('an unusable file is named, with the place', () => {
  const directory = written({
    'toml.lan/hosts.toml': 'server = ',
    'kind.lan/hosts.toml': 'server = 5',
    'url.lan/hosts.toml': '[host."http://user:password@x"]',
    'ca.lan/hosts.toml': 'ca = "none.pem"',
    'key.lan/hosts.toml': '[host."https://m"]\nca = ["good.pem", "key.pem"]',
    'key.lan/good.pem': PEM,
    'key.lan/key.pem': PEM.replaceAll('CERTIFICATE', 'PRIVATE KEY'),
    'broken.lan/hosts.toml': 'ca = "broken.pem"',
    'broken.lan/broken.pem': PEM.replace(/\n[^-\n]+/, ''),
    'empty.lan/hosts.toml': 'ca = "empty.pem"',
    'empty.lan/empty.pem': '',
    'crt.lan/ca.crt': '<html></html>',
    'capability.lan/hosts.toml': '[host."https://m"]\ncapabilities = ["pul"]',
    'name.lan/hosts.toml': '[host."https://m".header]\n"x y" = "1"',
    'length.lan/hosts.toml': '[host."https://m".header]\nContent-Length = "1"',
    'value.lan/hosts.toml': '[host."https://m".header]\nx-a = "1\\n2"',
    'many.lan/hosts.toml': Array.from({ length: 17 }, (_, i) => `[host."https://m${i}"]`).join(
      '\n',
    ),
  });
  const hosts = new HostsDirectory(directory);
  for (const [host, word] of [
    ['toml.lan', 'hosts.toml'],
    ['kind.lan', '"server"'],
    ['url.lan', 'not the URL'],
    ['ca.lan', 'none.pem'],
    ['key.lan', '"ca": "key.pem" has no certificate'],
    ['broken.lan', '"ca": "broken.pem" has no certificate'],
    ['empty.lan', '"ca": "empty.pem" has no certificate'],
    ['crt.lan', 'ca.crt": it has no certificate'],
    ['capability.lan', '"pul"'],
    ['name.lan', '"x y"'],
    ['length.lan', '"Content-Length"'],
    ['value.lan', '"x-a"'],
    ['many.lan', '16'],
  ] as const) {
    const refused = (error: Error & { code?: string }) =>
      error.code === ErrorCodes.InvalidArgument &&
      error.message.includes(`${directory}/${host}`) &&
      error.message.includes(word);
    assert.throws(() => hosts.lookUp(host), refused, host);
  }
  assert.equal(hosts.lookUp('../../etc'), undefined);
});

test('a mirror at a default port gets a login that names the port', () => {
  const directory = written({ 'docker.io/hosts.toml': '[host."https://mirror.lan:443"]' });
  const [mirror] = new RegistryHosts([], {}, directory).endpointsOf('docker.io', 'pull');
  assert.deepEqual(mirror?.loginHosts, ['mirror.lan', 'mirror.lan:443']);
});

test('a file that cannot be looked up is an Io error, and a later one changes nothing', async () => {
  const directory = written({ 'a.lan/hosts.toml': '' });
  symlinkSync('loop.lan', join(directory, 'loop.lan'));
  symlinkSync('late.pem', join(directory, 'a.lan/late.pem'));
  const hosts = new HostsDirectory(directory);
  assert.throws(() => hosts.lookUp('loop.lan'), { code: ErrorCodes.Io });
  const before = hosts.lookUp('a.lan');
  assert.equal(hosts.lookUp('late.lan'), undefined);
  assert.equal(hosts.lookUp('none.lan'), undefined);
  writeFileSync(join(directory, 'a.lan/hosts.toml'), 'ca = "late.pem"');
  symlinkSync('late.lan', join(directory, 'late.lan'));
  mkdirSync(join(directory, 'none.lan'));
  writeFileSync(join(directory, 'none.lan/hosts.toml'), 'server = ');
  await setTimeout(1100);
  assert.equal(hosts.lookUp('a.lan'), before);
  assert.equal(hosts.lookUp('late.lan'), undefined);
  assert.equal(hosts.lookUp('none.lan'), undefined);
});

test('settingsOf() is short, and changes with a certificate', async () => {
  const directory = written({ 'a.lan/hosts.toml': 'ca = "ca.pem"', 'a.lan/ca.pem': PEM });
  const hosts = new RegistryHosts([], {}, directory);
  const before = hosts.settingsOf('a.lan');
  writeFileSync(join(directory, 'a.lan/ca.pem'), rootCertificates.join('\n'));
  writeFileSync(join(directory, 'a.lan/hosts.toml'), 'ca = ["ca.pem"]');
  await setTimeout(1100);
  assert.notEqual(hosts.settingsOf('a.lan'), before);
  assert.ok(hosts.settingsOf('a.lan').length < 100);
});

test('a change takes effect within a second; an unreadable one keeps the previous settings', async () => {
  const directory = written({ 'a.lan/hosts.toml': 'server = "http://a.lan:1"' });
  const hosts = new RegistryHosts([], {}, directory);
  const origin = () => hosts.endpointsOf('a.lan', 'pull')[0]?.origin;
  assert.equal(origin(), 'http://a.lan:1');
  writeFileSync(join(directory, 'a.lan/hosts.toml'), 'server = "http://a.lan:22"');
  await setTimeout(1100);
  assert.equal(origin(), 'http://a.lan:22');
  writeFileSync(join(directory, 'a.lan/hosts.toml'), 'server = ');
  await setTimeout(1100);
  assert.equal(origin(), 'http://a.lan:22');
});

test('at the limit, only the host that was checked longest ago is read again', () => {
  const directory = written({ 'a.lan/hosts.toml': '', 'b.lan/hosts.toml': '' });
  const hosts = new HostsDirectory(directory);
  const kept = [hosts.lookUp('a.lan'), hosts.lookUp('b.lan')][1];
  for (const host of ['a.lan', 'b.lan']) {
    writeFileSync(join(directory, host, 'hosts.toml'), 'server = ');
  }
  for (let i = 0; i < 255; i++) hosts.lookUp(`h${i}.lan`);
  assert.equal(hosts.lookUp('b.lan'), kept);
  assert.throws(() => hosts.lookUp('a.lan'), { code: ErrorCodes.InvalidArgument });
});
