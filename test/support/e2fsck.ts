/**
 * Runs e2fsck on a file system. It judges the output of src/ext4: it must end with 0, and print only its passes and its
 * summary.
 */
import { spawnSync } from 'node:child_process';

/** Debian keeps it out of the PATH of ordinary users. */
const ENVIRONMENT = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin`, LC_ALL: 'C' };
const EXPECTED = /^(e2fsck \d|Pass \d: |.*: \d+\/\d+ files \(.*\), \d+\/\d+ blocks$|$)/;

/** Why tests that need e2fsck are skipped, or false. */
export const NO_E2FSCK: string | false =
  spawnSync('e2fsck', ['-V'], { env: ENVIRONMENT }).status === 0 ? false : 'needs e2fsck';

/** The lines that e2fsck should not have printed. */
export function e2fsckComplaints(path: string): string[] {
  const options = { encoding: 'utf8', env: ENVIRONMENT } as const;
  const { status, stdout, stderr } = spawnSync('e2fsck', ['-fn', path], options);
  const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => !EXPECTED.test(line));
  return status === 0 ? lines : [`exit status ${status}`, ...lines];
}

/** Runs one of debugfs's commands, read-only, and returns what it prints. */
export function debugfs(path: string, command: string): string {
  const options = { encoding: 'utf8', env: ENVIRONMENT } as const;
  return spawnSync('debugfs', ['-R', command, path], options).stdout;
}
