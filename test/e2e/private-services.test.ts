/**
 * Goal: the scripts end each service by SIGTERM, in whichever order the services started, and wait for its end.
 * Method: scripts/private-services.sh with shells for services, which log their end.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';

const directory = mkdtempSync(join(tmpdir(), 'obd-services-'));
after(() => rmSync(directory, { recursive: true }));

test('stops the service that started first while others run', () => {
  const script = `
    set -euo pipefail
    . "$1"
    DIR=$2
    trap 'force_away "$DIR" >&2' EXIT
    for name in first second third; do
      start_service "$DIR" "$name" bash -c 'trap "sleep 0.3; echo ended; exit" TERM; echo ready; while :; do sleep 0.05; done' "$DIR/$name"
      await_service "$DIR" "$name" grep ready "$DIR/$name.log"
    done
    for name in first second third; do stop_service "$DIR" "$name"; cat "$DIR/$name.log"; done
    leftovers "$DIR"`;
  const shared = join(repositoryRoot(), 'scripts', 'private-services.sh');
  const said = execFileSync('bash', ['-c', script, 'services', shared, directory], {
    encoding: 'utf8',
  });
  assert.equal(said, 'ready\nended\n'.repeat(3));
});

function repositoryRoot(): string {
  let at = import.meta.dirname;
  while (!existsSync(join(at, 'package.json'))) at = dirname(at);
  return at;
}
