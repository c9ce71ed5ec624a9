/** The privileges of this process, by its effective capabilities (capabilities(7)). */
import { readFile } from 'node:fs/promises';

const CAP_SYS_ADMIN = 21n;

/** Whether this process has CAP_SYS_ADMIN, which drivers of block devices require. */
export async function hasSysAdmin(): Promise<boolean> {
  const status = await readFile('/proc/self/status', 'utf8');
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 1n;
}
