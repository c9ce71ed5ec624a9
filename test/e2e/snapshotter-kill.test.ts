/**
 * Goal: obd-snapshotter may be killed at any time: answered calls have taken effect, unanswered ones wholly or not at
 * all, and no directory or mount lacks a record.
 * Method: calls of all kinds from several clients at once, SIGKILL after a random time, start, comparison of records,
 * directories and mounts with each other and with the answers; again and again on the same root.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { mountsIn, SnapshotterProcess, unfit } from '../support/snapshotter-process.js';

const KILLS = 6;
const CLIENTS = 4;
const KILL_AFTER_MS_MAX = 400;

describe('kill -9', { skip: unfit, timeout: 120_000 }, () => {
  let snapshotter: SnapshotterProcess;
  /** Answered calls: name to the text in its layer. */
  const committed = new Map<string, string>();
  /** The last call on a name that was not answered. */
  const unanswered = new Set<string>();
  let count = 0;

  before(async () => {
    snapshotter = await SnapshotterProcess.start();
  });
  after(async () => await snapshotter.stop());

  /** Makes, writes, commits and now and then removes layers, until the process is gone. */
  async function work(): Promise<void> {
    const { client } = snapshotter;
    let parent = '';
    try {
      for (;;) {
        const name = `layer-${count++}`;
        unanswered.add(`key ${name}`);
        unanswered.add(name);
        await client.prepare(`key ${name}`, parent, { of: name });
        const { mounts } = { mounts: await client.mounts(`key ${name}`) };
        const files = filesOf(mounts[0]?.options ?? [], mounts[0]?.source ?? '');
        writeFileSync(join(files, 'text'), name);
        await client.commit(name, `key ${name}`, { of: name });
        unanswered.delete(`key ${name}`);
        unanswered.delete(name);
        committed.set(name, name);
        if (Math.random() < 0.3) {
          unanswered.add(name);
          committed.delete(name);
          await client.remove(name);
          unanswered.delete(name);
        } else if (Math.random() < 0.7) {
          parent = name;
        }
      }
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'ERR_UNAVAILABLE', String(error));
    }
  }

  async function checkAll(): Promise<void> {
    const listed = await snapshotter.client.list();
    const names = new Set(listed.map(({ name }) => name));
    for (const name of committed.keys()) assert.ok(names.has(name), `${name} is lost`);
    for (const name of names) {
      assert.ok(committed.has(name) || unanswered.has(name), `${name} should be gone`);
    }
    const directories = readdirSync(join(snapshotter.root, 'snapshots'));
    assert.equal(directories.length, listed.length, directories.join());
    for (const { name, kind, labels } of listed) {
      assert.equal(labels['of'], name.replace('key ', ''));
      if (kind !== 'COMMITTED') continue;
      const [mount] = await snapshotter.client.view(`view ${name}`, name);
      const [top = ''] = /lowerdir=([^:]*)/.exec(mount?.options.join() ?? '')?.slice(1) ?? [
        mount?.source ?? '',
      ];
      assert.equal(readFileSync(join(top, 'text'), 'utf8'), name);
      await snapshotter.client.remove(`view ${name}`);
    }
    assert.deepEqual(mountsIn(snapshotter.directory), []);
  }

  for (let kill = 0; kill < KILLS; kill++) {
    test(`number ${kill + 1}`, async () => {
      const workers = Array.from({ length: CLIENTS }, () => work());
      await setTimeout(Math.random() * KILL_AFTER_MS_MAX);
      await snapshotter.end('SIGKILL');
      await Promise.all(workers);
      assert.ok(existsSync(join(snapshotter.root, 'snapshots.db')));
      await snapshotter.restart();
      await checkAll();
    });
  }
});

function filesOf(options: readonly string[], source: string): string {
  const upper = options.find((option) => option.startsWith('upperdir='));
  return upper?.slice('upperdir='.length) ?? source;
}
