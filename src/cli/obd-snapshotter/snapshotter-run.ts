/** `obd-snapshotter`: containerd's snapshotter `obd-ts`, as a proxy plugin on a unix socket. Wiring only. */
import { once } from 'node:events';
import { isDeepStrictEqual } from 'node:util';
import { hideBin } from 'yargs/helpers';
import { BlockdClient } from '../../blockd/blockd-client.js';
import { readConfigFile } from '../../config/config-file.js';
import { ErrorCodes, ObdError } from '../../errors.js';
import { LAYER_KINDS } from '../../layers/layer-kinds.js';
import { requireNode } from '../../node-version.js';
import { DockerCredentials } from '../../registry/docker-credentials.js';
import { RegistryClient } from '../../registry/registry-client.js';
import { type ReportWrongAnswer, WRONG_ANSWER_EVENT } from '../../registry/registry-exchange.js';
import { RegistryHosts } from '../../registry/registry-hosts.js';
import { DEFAULT_LIMITS } from '../../registry/registry-limits.js';
import { ImageLocator } from '../../snapshotter/image-locator.js';
import { PluginServers } from '../../snapshotter/plugin-servers.js';
import {
  CONTAINERD_CONFIG_EXAMPLE,
  pluginsOf,
  SNAPSHOTTER_CONFIG_EXAMPLE,
  SNAPSHOTTER_CONFIG_PATH,
  type SnapshotterConfig,
  snapshotterConfig,
} from '../../snapshotter/snapshotter-config.js';
import { commandLine } from '../command-line.js';
import { configReload } from '../config-reload.js';
import { daemonLog } from '../daemon-log.js';
import { reportFailure } from '../failure.js';
import { daemonStop } from '../interruption.js';
import type { Reloading } from '../reloading.js';

const PROGRAM = 'obd-snapshotter';
/** An attachment may wait for a slow registry. Waiting longer would have systemd kill this process. */
const STOP_GRACE_MS = 10_000;
/** For TCP and TLS to a registry that may have a layer. A pull waits this long, once a minute for each registry. */
const PROBE_CONNECT_MS = 1_500;

const EPILOGUE = `\
The configuration, with its defaults (${SNAPSHOTTER_CONFIG_PATH}; it may be missing):

${SNAPSHOTTER_CONFIG_EXAMPLE}
containerd must be told of it (/etc/containerd/config.toml):

${CONTAINERD_CONFIG_EXAMPLE}
Then: ctr images pull --snapshotter obd-ts IMAGE, or lazily: obdctl rpull IMAGE`;

async function serve(configPath: string | undefined, reloading: Reloading): Promise<void> {
  requireNode();
  const stop = daemonStop();
  const file = {
    path: configPath ?? SNAPSHOTTER_CONFIG_PATH,
    mayBeMissing: configPath === undefined,
    schema: snapshotterConfig,
  };
  const config = await readConfigFile(file.path, snapshotterConfig, file);
  if (process.geteuid?.() !== 0) {
    throw new ObdError(ErrorCodes.Host, 'Cannot mount file systems: run this as root');
  }
  const plugins = pluginsOf(config);
  const log = daemonLog(PROGRAM, config.log_level);
  const { plain_http, hosts, hosts_dir } = config.registry;
  const registryHosts = new RegistryHosts(plain_http, hosts, hosts_dir);
  const devices = new BlockdClient(config.blockd_socket);
  const credentials = new DockerCredentials(config.docker_config);
  const limits = { ...DEFAULT_LIMITS, connectMs: PROBE_CONNECT_MS };
  const reportWrong: ReportWrongAnswer = (mirror, err) =>
    log.warn({ mirror, err }, WRONG_ANSWER_EVENT);
  const clientWith = (logins: DockerCredentials) =>
    new RegistryClient({ hosts: registryHosts, credentials: logins, limits, reportWrong });
  const registry = clientWith(credentials);
  const namespaces = new Map(
    Object.entries(config.namespaces).map(([name, { docker_config }]) => {
      const own = new DockerCredentials(docker_config);
      return [name, { credentials: own, registry: clientWith(own) }];
    }),
  );
  const containerdSocket = config.containerd_socket;
  const locator = new ImageLocator({
    containerdSocket,
    hosts: registryHosts,
    daemon: devices,
    kinds: LAYER_KINDS,
    registry,
    namespaces,
    log,
  });
  const servers = await PluginServers.open(plugins, {
    kinds: LAYER_KINDS,
    devices,
    locator,
    shareBetweenNamespaces: config.share_between_namespaces,
    log,
  });
  const apply = (fresh: SnapshotterConfig): (keyof SnapshotterConfig)[] => {
    // Refuses a file that the next start would refuse.
    pluginsOf(fresh);
    const { plain_http, hosts, hosts_dir } = fresh.registry;
    registryHosts.replace(plain_http, hosts, hosts_dir);
    credentials.replace(fresh.docker_config);
    registry.forgetLogins();
    for (const [name, { credentials: own, registry }] of namespaces) {
      // Adding or removing a namespace takes a restart. Until then a removed one keeps its last login.
      const login = fresh.namespaces[name];
      if (login !== undefined) own.replace(login.docker_config);
      registry.forgetLogins();
    }
    locator.invalidate();
    log.level = fresh.log_level;
    const isSame = isDeepStrictEqual([...namespaces.keys()], Object.keys(fresh.namespaces));
    return ['registry', 'docker_config', 'log_level', ...(isSame ? ['namespaces' as const] : [])];
  };
  reloading.answer(configReload({ ...file, config, log, apply }));
  if (!stop.aborted) await once(stop, 'abort');
  log.info({}, 'stopping, mounts and devices stay for the containers that use them');
  await servers.close(STOP_GRACE_MS);
  devices.close();
  for (const { registry } of namespaces.values()) await registry.close();
  await registry.close();
  // An attachment without a waiting client must not keep the process running.
  process.exit();
}

/** Runs the daemon until it is told to stop. */
export async function runSnapshotter(reloading: Reloading): Promise<void> {
  try {
    const { config } = await commandLine(PROGRAM, hideBin(process.argv))
      .usage("$0 [--config FILE]: containerd's snapshotter for lazily loaded images")
      .options({
        config: {
          type: 'string',
          requiresArg: true,
          describe: `TOML file; by default ${SNAPSHOTTER_CONFIG_PATH}`,
        },
      })
      .epilogue(EPILOGUE)
      // Wrapped lines of the example would not be TOML.
      .wrap(null)
      .parseAsync();
    await serve(config, reloading);
  } catch (error) {
    process.exitCode = reportFailure(PROGRAM, error);
  }
}
