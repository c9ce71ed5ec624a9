/** Which Node obd-ts runs on: that of `engines` in package.json, and any newer one. */
import { ErrorCodes, ObdError } from './errors.js';

/** Major and minor version of the oldest. better-sqlite3 crashes on Node 20, and its predecessor on Node 24. */
export const NODE_WANTED = [22, 20] as const;

export const NODE_REMEDY =
  'run scripts/install-deps.sh quickstart, which brings a Node for obd-ts and builds with it';

/** @param version - "24.21.0" */
export function isNodeSupported(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > NODE_WANTED[0] || (major === NODE_WANTED[0] && minor >= NODE_WANTED[1]);
}

/** @throws {ObdError} `Host` where Node is too old; a daemon would crash later, at its first look into a database. */
export function requireNode(version = process.versions.node): void {
  if (isNodeSupported(version)) return;
  throw new ObdError(
    ErrorCodes.Host,
    `Cannot run on Node ${version}: Node ${NODE_WANTED.join('.')} or newer is needed; ${NODE_REMEDY}`,
  );
}
