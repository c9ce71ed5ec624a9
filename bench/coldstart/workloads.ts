/** What the benchmark starts: an image, and the command whose output shows that it has started. */
import { run } from '../programs.js';
import { ROOT } from './folders.js';

export interface Workload {
  readonly name: string;
  /** In the container. Its first byte is the first output; the line that begins with `ready`, if any, ends the start. */
  readonly command: readonly string[];
  /** Makes the plain image, unless it is in the cache. @returns An image of an OCI layout, `DIR:TAG`. */
  readonly source: () => Promise<string>;
}

/** Debian with Python and Flask, made for the quickstart. */
async function sampleImage(): Promise<string> {
  const layout = await run('bash', [`${ROOT}/scripts/sample-image.sh`, '--cached']);
  return `${layout.trim()}:sample`;
}

/** An image of make-image.sh. */
function madeImage(name: string): Workload {
  const source = async (): Promise<string> =>
    (await run('bash', [`${ROOT}/bench/coldstart/make-image.sh`, name])).trim();
  return { name, command: ['/srv/start'], source };
}

/** Reads four of five files, and prints a checksum of what it read. */
const READ_MOST =
  'export LC_ALL=C; find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -type f -print ' +
  "| sort | awk 'NR % 5' | xargs -d '\\n' cat | cksum";

export const WORKLOADS: readonly Workload[] = [
  { name: 'python', command: ['python3', '/srv/app/app.py'], source: sampleImage },
  { name: 'dense', command: ['sh', '-c', READ_MOST], source: sampleImage },
  ...['jvm', 'nodejs', 'pandas', 'nginx', 'layers', 'model'].map(madeImage),
];
