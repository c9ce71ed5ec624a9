/** The OCI runtime config of a container, from the default one of containerd (`ctr oci spec`). */
import * as z from 'zod';
import { ErrorCodes, ObdError } from '../../errors.js';
import type { StartCommand } from '../../predict/start-command.js';
import type { ContainerUser } from './container-user.js';

/** The parts that are changed. */
const specSchema = z.looseObject({
  process: z.looseObject({}),
  root: z.looseObject({}),
  mounts: z.array(z.looseObject({})).default([]),
  linux: z.looseObject({ namespaces: z.array(z.looseObject({ type: z.string() })) }),
});

/** The keys of a mount, and what each is called here. */
const MOUNT_KEYS: ReadonlyMap<string, string> = new Map([
  ['type', 'type'],
  ...['src', 'source'].map((key) => [key, 'src'] as const),
  ...['dst', 'destination', 'target'].map((key) => [key, 'dst'] as const),
  ['options', 'options'],
]);

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** A container in the host's network looks names up as the host does. */
const HOST_NETWORK_FILES = ['/etc/hosts', '/etc/resolv.conf'];

export interface ContainerMount {
  readonly type: string;
  readonly source: string;
  readonly destination: string;
  readonly options: readonly string[];
}

export interface ContainerOptions {
  readonly command: StartCommand;
  readonly user: ContainerUser;
  /** Where the root file system is mounted. */
  readonly root: string;
  readonly mounts: readonly ContainerMount[];
  readonly isInHostNetwork: boolean;
  readonly cgroupsPath: string;
}

/**
 * @param base - JSON of the default config.
 * @throws {ObdError} `Unsupported` for a default config of another form.
 */
export function containerSpec(base: string, options: ContainerOptions): string {
  const { command, user, root, mounts, isInHostNetwork, cgroupsPath } = options;
  const spec = specSchema.safeParse(jsonOf(base)).data;
  if (spec === undefined) {
    const message = 'Cannot use what `ctr oci spec` prints: it is no OCI runtime config for Linux';
    throw new ObdError(ErrorCodes.Unsupported, message);
  }
  const { argv, env, cwd } = command;
  const variables = new Map([['PATH', DEFAULT_PATH], ...env]);
  const { namespaces } = spec.linux;
  const hostFiles = HOST_NETWORK_FILES.map((path) => ({
    ...{ type: 'bind', source: path, destination: path },
    options: ['rbind', 'ro'],
  }));
  return JSON.stringify({
    ...spec,
    root: { path: root, readonly: false },
    process: {
      ...spec.process,
      terminal: false,
      args: argv,
      env: [...variables].map(([name, value]) => `${name}=${value}`),
      cwd,
      user,
    },
    mounts: [...spec.mounts, ...(isInHostNetwork ? hostFiles : []), ...mounts],
    linux: {
      ...spec.linux,
      cgroupsPath,
      namespaces: namespaces.filter(({ type }) => !isInHostNetwork || type !== 'network'),
    },
  });
}

/**
 * Parses a mount as `ctr run --mount` has it: `type=bind,src=/tmp,dst=/host,options=rbind:ro`.
 *
 * @throws {ObdError} `InvalidArgument`.
 */
export function parseMount(text: string): ContainerMount {
  const values = new Map<string, string>();
  for (const part of text.split(',')) {
    const equals = part.indexOf('=');
    const key = part.slice(0, Math.max(0, equals));
    const name = MOUNT_KEYS.get(key);
    if (name === undefined) throw noMount(text, `"${part}" is of no known key`);
    values.set(name, part.slice(equals + 1));
  }
  const [type, source, destination] = ['type', 'src', 'dst'].map((name) => values.get(name));
  if (!type || !source || !destination) throw noMount(text, 'type, src or dst is missing');
  if (!destination.startsWith('/')) throw noMount(text, `${destination} is no absolute path`);
  if (type === 'bind' && !source.startsWith('/')) {
    throw noMount(text, `${source} is no absolute path`);
  }
  return { type, source, destination, options: values.get('options')?.split(':') ?? [] };
}

function noMount(text: string, why: string): ObdError {
  return new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot use --mount ${text}: ${why}; write it as type=bind,src=/host,dst=/container,options=rbind:ro`,
  );
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
