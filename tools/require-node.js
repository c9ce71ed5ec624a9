/**
 * Ends the build with a remedy if Node is too old for obd-ts: it would build add-ons for a Node that cannot load all of
 * them. The tools of `npm run build` import this first.
 *
 * JavaScript, because it runs before anything else of this repository does.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '..');
const { engines } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
/** The form is ">=22.20". */
const wanted = engines.node.slice('>='.length);
const [major, minor] = wanted.split('.').map(Number);
const [majorHere, minorHere] = process.versions.node.split('.').map(Number);

if (majorHere < major || (majorHere === major && minorHere < minor)) {
  process.stderr.write(
    `Cannot build obd-ts: Node ${process.versions.node} is too old, ${wanted} or newer is needed; ` +
      `run scripts/install-deps.sh quickstart, which brings one, or first: eval "$(scripts/node-env.sh)"\n`,
  );
  process.exit(1);
}
