/**
 * Goal: SIGHUP never ends a daemon that handles it, from its first line on.
 * Method: the real programs, signalled again and again while they start.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { blockdUnfit } from '../../test/support/blockd-process.js';
import { programArguments } from '../../test/support/program.js';

const START_MS_MAX = 60_000;

/** Bit 0 of SigCgt (proc(5)), as the units' ExecReload looks at it. */
function handlesHangup(pid: number): boolean {
  return /^SigCgt:.*[13579bdf]$/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
}

for (const program of ['obd-blockd', 'obd-snapshotter'] as const) {
  test(`SIGHUP reloads ${program} while it starts`, { skip: blockdUnfit }, async () => {
    const directory = mkdtempSync('/var/tmp/obdh.');
    const path = (name: string) => JSON.stringify(join(directory, name));
    const config = join(directory, 'config.toml');
    writeFileSync(
      config,
      program === 'obd-blockd'
        ? `socket = ${path('socket')}\nnbd_socket = ${path('nbd')}\nstate_dir = ${path('state')}\n`
        : `socket = ${path('socket')}\nblockd_socket = ${path('blockd')}\nroot = ${path('root')}\n`,
    );
    const child = spawn(process.execPath, [...programArguments(program), '--config', config], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const pid = child.pid as number;
    let log = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      log += text;
    });
    try {
      const deadline = Date.now() + START_MS_MAX;
      let early = 0;
      while (!log.includes('configuration and logins reloaded')) {
        assert.equal(child.exitCode ?? child.signalCode, null, log);
        assert.ok(Date.now() < deadline, log);
        // One signal as soon as the handler exists, and more while the program loads.
        if (early < 3 && handlesHangup(pid)) {
          child.kill('SIGHUP');
          early++;
        }
        await setTimeout(5);
      }
      assert.ok(early > 0);
    } finally {
      child.kill('SIGTERM');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      rmSync(directory, { recursive: true, force: true });
    }
  });
}
