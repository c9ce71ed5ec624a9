/** The mounts of this process's mount namespace, from the kernel's own table. */
import { readFile } from 'node:fs/promises';

export interface Mount {
  readonly path: string;
  readonly type: string;
}

/** In the order in which they were mounted. */
export async function readMounts(): Promise<Mount[]> {
  const table = await readFile('/proc/self/mountinfo', 'utf8');
  return parseMounts(table);
}

/** `id parent major:minor root PATH options [tags...] - TYPE source options`, one a line. */
export function parseMounts(table: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of table.split('\n')) {
    const fields = line.split(' ');
    const path = fields[4];
    const type = fields[fields.indexOf('-', 6) + 1];
    if (path !== undefined && type !== undefined) mounts.push({ path: plainPath(path), type });
  }
  return mounts;
}

/** The kernel writes space, tab, newline and backslash as three octal digits. */
function plainPath(path: string): string {
  const bytes = Buffer.from(path).toString('latin1');
  const plain = bytes.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
  return Buffer.from(plain, 'latin1').toString();
}
