/**
 * Goal: SIGHUP reloads a daemon: it applies the keys that can change, logs the others, and ignores a broken file.
 * Method: the real daemons; a registry that wants a login.
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { layerOf } from '../support/block-image.js';
import { blockdUnfit } from '../support/blockd-process.js';
import { LoopbackRegistry } from '../support/loopback-registry.js';
import { type Daemon, OutputDaemon } from '../support/output-daemon.js';
import { trustCase } from '../support/trust-case.js';
import { pagesOf } from '../support/virtual-disks.js';

const skip = blockdUnfit === false ? undefined : blockdUnfit;
const LOGGED_MS_MAX = 10_000;
/** A key that takes a restart, with a value for each. */
const FIXED: Readonly<Record<Daemon, string>> = {
  'obd-blockd': 'transport = "nbd"\n',
  'obd-snapshotter': 'share_between_namespaces = false\n',
};

/** Signals the daemon, and returns its log line. */
async function reload(daemon: OutputDaemon, message: RegExp): Promise<Record<string, unknown>> {
  const before = daemon.log().length;
  daemon.child.kill('SIGHUP');
  const deadline = Date.now() + LOGGED_MS_MAX;
  for (;;) {
    const lines = daemon.log().slice(before).split('\n').slice(0, -1);
    const found = lines.map((line) => JSON.parse(line)).find(({ msg }) => message.test(msg));
    if (found !== undefined) return found;
    assert.ok(Date.now() < deadline, `it did not log ${message}: ${lines.join('\n')}`);
    await setTimeout(20);
  }
}

for (const program of ['obd-blockd', 'obd-snapshotter'] as const) {
  trustCase(
    'logging',
    `${program}, SIGHUP`,
    'log level reloaded; a fixed key and a broken file named; the process stays',
    async () => {
      const daemon = await OutputDaemon.start(program, 'pipe');
      try {
        daemon.readLog();
        daemon.configure(`log_level = "debug"\n[registry]\nplain_http = ["a.example"]\n`);
        const { reloaded } = await reload(daemon, /^configuration and logins reloaded/);
        assert.deepEqual([...(reloaded as string[])].sort(), ['log_level', 'registry']);
        daemon.configure(`${FIXED[program]}log_level = "debug"\n`);
        const { keys } = await reload(daemon, /restart the daemon to apply them$/);
        assert.deepEqual(keys, [FIXED[program].split(' ')[0]]);
        const one = 'socket = "/run/one.sock"\nroot = "/var/lib/one"\n';
        for (const broken of [
          'nonsense = 1\n',
          '= = =\n',
          '[registry]\nplain_http = ["a b"]\n',
          `[plugins.a]\n${one}[plugins.b]\n${one}`,
        ]) {
          daemon.configure(broken);
          const { err } = await reload(daemon, /^configuration not reloaded/);
          assert.match(String((err as { code?: string }).code), /^ERR_INVALID_ARGUMENT$/);
        }
        await daemon.checkAlive();
        await daemon.stop();
        return `reloaded ${String(reloaded)}; restart for ${String(keys)}; 4 broken files refused`;
      } catch (error) {
        await daemon.kill();
        throw error;
      }
    },
    { skip },
  );
}

trustCase(
  'logging',
  'obd-blockd, SIGHUP after docker_config was changed',
  'an attach that was refused works with the new logins',
  async () => {
    const registry = await LoopbackRegistry.start();
    registry.login = { kind: 'basic', username: 'ann', password: 'secret-of-ann' };
    const daemon = await OutputDaemon.start('obd-blockd', 'pipe');
    try {
      daemon.readLog();
      const blob = layerOf(pagesOf(1 << 20), () => true);
      const digest = registry.addBlob(blob);
      const image = join(daemon.directory, 'image.json');
      const repoBlobUrl = `http://${registry.host}/v2/x/y/blobs`;
      const lowers = [{ digest, size: blob.length }];
      writeFileSync(image, JSON.stringify({ repoBlobUrl, lowers }));
      await assert.rejects(daemon.attach('d', image), { code: 'ERR_UNAUTHORIZED' });
      const logins = join(daemon.directory, 'logins', 'config.json');
      mkdirSync(join(daemon.directory, 'logins'));
      const auth = Buffer.from('ann:secret-of-ann').toString('base64');
      writeFileSync(logins, JSON.stringify({ auths: { [registry.host]: { auth } } }));
      daemon.configure(`docker_config = ${JSON.stringify(logins)}\n`);
      await reload(daemon, /^configuration and logins reloaded/);
      const device = await daemon.attach('d', image);
      await daemon.detach('d');
      assert.ok(!daemon.log().includes('secret-of-ann'));
      await daemon.stop();
      return `refused before, ${device} after`;
    } catch (error) {
      await daemon.kill();
      throw error;
    } finally {
      await registry.close();
    }
  },
  { skip },
);
