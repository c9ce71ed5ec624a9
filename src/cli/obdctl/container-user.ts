/**
 * Resolves the user of a container as container engines do (OCI image spec, "config", `User`): `user`, `uid`, `user:group`,
 * `uid:gid` and mixtures, by the image's own /etc/passwd and /etc/group.
 */
import { ErrorCodes, ObdError } from '../../errors.js';

/** As an OCI runtime config has it (runtime spec, "process", `user`). */
export interface ContainerUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
}

const ID = /^[0-9]{1,10}$/;
const ID_MAX = 2 ** 31 - 1;

/**
 * Checks what a user wrote, before there is an image to look names up in.
 *
 * @throws {ObdError} `InvalidArgument` for more than two parts, no user, or an id above the kernel's.
 */
export function checkUser(text: string): void {
  const [user, ...groups] = text.split(':');
  const huge = [user, ...groups].find(
    (part = '') => /^[0-9]+$/.test(part) && Number(part) > ID_MAX,
  );
  const problem =
    huge !== undefined
      ? `${huge} is more than ${ID_MAX}`
      : user === '' || groups.length > 1
        ? 'it is no user'
        : undefined;
  if (problem === undefined) return;
  const remedy = 'write USER or USER:GROUP, names of the image or numbers';
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot use --user ${text}: ${problem}; ${remedy}`,
  );
}

/**
 * @param text - Empty for root.
 * @param passwd - The text of the image's /etc/passwd; empty if it has none.
 * @param group - The same of /etc/group.
 * @throws {ObdError} `NotFound` for a name that the image does not have.
 */
export function containerUser(text: string, passwd: string, group: string): ContainerUser {
  const [wantedUser = '', wantedGroup] = text === '' ? ['0'] : text.split(':', 2);
  const user = rowsOf(passwd).find(([name, , uid]) =>
    ID.test(wantedUser) ? Number(uid) === Number(wantedUser) : name === wantedUser,
  );
  const uid = idOf(ID.test(wantedUser) ? wantedUser : user?.[2], text, '/etc/passwd');
  const groups = rowsOf(group);
  if (wantedGroup !== undefined && wantedGroup !== '') {
    const found = groups.find(([name]) => name === wantedGroup)?.[2];
    const gid = idOf(ID.test(wantedGroup) ? wantedGroup : found, text, '/etc/group');
    return { uid, gid, additionalGids: [] };
  }
  const additionalGids = groups
    .filter(([, , , members = '']) => user !== undefined && members.split(',').includes(user[0]!))
    .flatMap(([, , gid]) => (gid !== undefined && ID.test(gid) ? [Number(gid)] : []));
  return { uid, gid: idOf(user?.[3] ?? '0', text, '/etc/passwd'), additionalGids };
}

function rowsOf(text: string): string[][] {
  return text.split('\n').map((line) => line.split(':'));
}

function idOf(id: string | undefined, user: string, file: string): number {
  if (id !== undefined && ID.test(id) && Number(id) <= ID_MAX) return Number(id);
  throw new ObdError(
    ErrorCodes.NotFound,
    `Cannot run a container as "${user}": ${file} of the image does not have it; name numbers by --user UID:GID`,
  );
}
