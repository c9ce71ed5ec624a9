/** The kernel function that a process waits in, as proc(5) shows it. */
import { readFile } from 'node:fs/promises';

/**
 * The kernel function in which the process waits uninterruptibly, "0" where this kernel does not say which.
 * Undefined if the process runs, waits otherwise, or has ended.
 */
export async function blockedIn(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The name of the program, in parentheses, may have any bytes.
  if (!stat.slice(stat.lastIndexOf(')')).startsWith(') D')) return undefined;
  return (await readFile(`/proc/${pid}/wchan`, 'utf8').catch(() => '0')).trim();
}
