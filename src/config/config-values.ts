/** Value types that several daemons' configurations share, with their error messages. */
import { isAbsolute } from 'node:path';
import * as z from 'zod';

const UNITS: Readonly<Record<string, number>> = {
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
};

const DURATION_UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  min: 60_000,
  h: 3_600_000,
};

/** An absolute path, so that it does not depend on the daemon's working directory. */
export const absolutePath = z
  .string()
  .refine(isAbsolute, 'must be an absolute path, such as /var/lib/obd-ts');

/** "10 GiB", "500MB", or a number of bytes; becomes bytes. */
export const byteAmount = z
  .union([z.string(), z.number()], 'must be a size, such as "10 GiB"')
  .transform((value, context) => {
    const bytes = typeof value === 'number' ? value : bytesOf(value);
    if (Number.isSafeInteger(bytes) && bytes >= 0) return bytes;
    const problem = `is no size: ${JSON.stringify(value)}; write it like "10 GiB" (${Object.keys(UNITS).join(', ')})`;
    context.addIssue({ code: 'custom', message: problem });
    return z.NEVER;
  });

function bytesOf(text: string): number {
  const [, number = '', unit = ''] = /^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)$/.exec(text) ?? [];
  return number === ''
    ? Number.NaN
    : Math.floor(Number(number) * (UNITS[unit || 'B'] ?? Number.NaN));
}

/** "600 s", "10 min", or a number of seconds; becomes milliseconds, between `minMs` and `maxMs`. */
export function duration(minMs: number, maxMs: number) {
  return z
    .union([z.string(), z.number()], 'must be a duration, such as "600 s"')
    .transform((value, context) => {
      const ms = typeof value === 'number' ? value * 1000 : millisecondsOf(value);
      if (ms >= minMs && ms <= maxMs) return Math.round(ms);
      const range = `from ${minMs / 1000} s to ${maxMs / 1000} s`;
      const problem = `is no duration ${range}: ${JSON.stringify(value)}; write it like "600 s" (${Object.keys(DURATION_UNITS).join(', ')}), or as a number of seconds`;
      context.addIssue({ code: 'custom', message: problem });
      return z.NEVER;
    });
}

function millisecondsOf(text: string): number {
  const [, number = '', unit = ''] = /^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)$/.exec(text) ?? [];
  return number === '' ? Number.NaN : Number(number) * (DURATION_UNITS[unit || 's'] ?? Number.NaN);
}

export const logLevel = z.enum(['error', 'warn', 'info', 'debug']);

/** The arguments of RegistryHosts: plain HTTP registries, other addresses of registries, containerd's hosts directory. */
export const registryTable = z.strictObject({
  plain_http: z.array(z.string()).default([]),
  hosts: z.record(z.string(), z.string()).default({}),
  hosts_dir: absolutePath.default('/etc/containerd/certs.d'),
});

/** The keys of every daemon's configuration: spread them into the schema. */
export const commonKeys = {
  docker_config: absolutePath.optional(),
  log_level: logLevel.default('info'),
  registry: registryTable.prefault({}),
};

/** commonKeys with their defaults, or a likely value where there is no default: the end of every daemon's example. */
export const COMMON_KEYS_EXAMPLE = `\
# Logins for registries. By default $DOCKER_CONFIG/config.json, and that is ~/.docker.
docker_config = "/etc/obd-ts/docker.json"
# error, warn, info or debug
log_level = "info"

[registry]
# containerd's host configuration, HOST/hosts.toml: mirrors, plain HTTP, certificate authorities.
hosts_dir = "/etc/containerd/certs.d"
# More registries that speak plain HTTP, as host or host:port. Loopback registries need no entry.
plain_http = ["registry.lan:5000"]

[registry.hosts]
# Another address for the registry of a name.
"registry.lan" = "registry.lan:5000"
`;
