/**
 * Places the unix socket of a server at its path.
 *
 *   1. The socket is made in a directory of mode 0700, gets mode 0600, and only then is renamed to its path: at no
 *      moment can anyone but its owner connect.
 *   2. The rename replaces the socket of a server that died, and never a socket that a process answers at.
 *   3. If two servers start in the same moment, both may find no other server, and the later one gets the path. A server
 *      that must be alone holds a lock on its state, and not on its socket.
 */
import { chmod, lstat, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';

/** sun_path has 108 bytes, of which the last is zero. */
const SOCKET_PATH_BYTES_MAX = 107;

/** @throws {ObdError} `InvalidArgument` for a path that is too long for a socket. */
export function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= SOCKET_PATH_BYTES_MAX) return;
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot use the socket "${path}": its path has ${bytes} bytes, and the limit is ${SOCKET_PATH_BYTES_MAX}`,
    { path },
  );
}

/**
 * Has `listen` make its socket at the path it is given, and puts that socket at `path`.
 *
 * @returns Takes the socket away, unless another one has its place.
 * @throws {ObdError} `Busy` if a process answers at `path`, `AlreadyExists` if there is something else than a socket,
 *   `InvalidArgument` for a path that is too long, `Io`.
 */
export async function placeSocket(
  path: string,
  listen: (path: string) => Promise<void>,
): Promise<() => Promise<void>> {
  const directory = dirname(resolve(path));
  checkSocketPath(path);
  checkSocketPath(join(directory, '.sXXXXXX', 's'));
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await checkFree(path);
    const hidden = await mkdtemp(join(directory, '.s'));
    try {
      const made = join(hidden, 's');
      await listen(made);
      await chmod(made, 0o600);
      const { ino } = await lstat(made);
      await rename(made, path);
      return async () => {
        const found = await lstat(path).catch(() => undefined);
        if (found?.ino === ino) await rm(path, { force: true });
      };
    } finally {
      await rm(hidden, { recursive: true, force: true });
    }
  } catch (cause) {
    if (cause instanceof ObdError) throw cause;
    const problem = `Cannot listen at "${path}": ${messageOf(cause)}`;
    throw new ObdError(ErrorCodes.Io, problem, { path }, cause);
  }
}

async function checkFree(path: string): Promise<void> {
  const found = await lstat(path).catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new ObdError(
      ErrorCodes.AlreadyExists,
      `Cannot listen at "${path}": it exists and is no socket; remove it or name another path`,
      { path },
    );
  }
  if (!(await answers(path))) return;
  throw new ObdError(
    ErrorCodes.Busy,
    `Cannot listen at "${path}": another process answers there; stop it or name another path than ${basename(path)}`,
    { path },
  );
}

/** Whether a process accepts connections there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error) => {
      const gone = ['ECONNREFUSED', 'ENOENT'].includes(systemCode(error) ?? '');
      if (gone) resolve(false);
      else reject(error);
    });
  });
}
