/** One run of `obdctl rpull`: connections, progress on stderr, one line of result on stdout. */
import { byteText } from '../../byte-text.js';
import { connectContainerd } from '../../containerd/connect.js';
import { type SnapshotterPlugin, snapshotterPlugins } from '../../containerd/daemon-info.js';
import { ErrorCodes, messageOf, ObdError } from '../../errors.js';
import type { GrpcClient } from '../../grpc/grpc-client.js';
import { LAYER_KINDS } from '../../layers/layer-kinds.js';
import { hostPlatform, parsePlatform } from '../../oci/platform.js';
import { parseReference } from '../../oci/reference.js';
import { type PulledImage, pullImage } from '../../pull/pull-image.js';
import { DockerCredentials } from '../../registry/docker-credentials.js';
import { RegistryClient } from '../../registry/registry-client.js';
import { RegistryHosts, registryAddress } from '../../registry/registry-hosts.js';
import { RegistrySource } from '../../registry/registry-image.js';
import { interruption } from '../interruption.js';
import { RpullProgress } from './rpull-progress.js';

/** Proxy plugins that serve other image formats. Any other name may be an alias of obd-ts. */
const OTHER_SNAPSHOTTERS: readonly string[] = [
  ...['stargz', 'soci', 'nydus', 'nydus-overlayfs', 'fuse-overlayfs', 'cvmfs-snapshotter'],
  ...['overlayfs', 'native', 'btrfs', 'zfs', 'devmapper', 'blockfile', 'erofs', 'nix'],
];

export interface RpullOptions {
  readonly reference: string;
  readonly address: string;
  readonly namespace: string;
  readonly snapshotter: string;
  readonly platform: string | undefined;
  readonly plainHttp: boolean;
  /** containerd's hosts directory. */
  readonly hostsDirectory: string;
  /** The layers' snapshots get them. */
  readonly labels: Readonly<Record<string, string>>;
}

export async function runRpull(options: RpullOptions): Promise<void> {
  const reference = parseReference(options.reference);
  const started = performance.now();
  const progress = new RpullProgress();
  const pulled = await pull(options, progress);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const sizes = `fetched ${byteText(progress.fetchedBytes)} of ${byteText(pulled.totalBytes)}`;
  process.stdout.write(
    `Pulled ${reference} (${pulled.digest}): ${progress.layersText()}; ${sizes} in ${seconds} s\n`,
  );
}

/** @throws {ObdError} as pullImage(); `FailedPrecondition` for a snapshotter that cannot pull it, or an interrupted pull. */
export async function pull(options: RpullOptions, progress: RpullProgress): Promise<PulledImage> {
  const reference = parseReference(options.reference);
  const platform =
    options.platform === undefined ? hostPlatform() : parsePlatform(options.platform);
  const plain = options.plainHttp ? [reference.host] : [];
  const hosts = new RegistryHosts(plain, {}, options.hostsDirectory);
  const signal = interruption();
  const containerd = connectContainerd(options.address, options.namespace);
  const client = new RegistryClient({ hosts, credentials: new DockerCredentials() });
  const source = new RegistrySource(client, reference, signal);
  const top = source.resolve();
  // pullImage() reports its failure.
  top.catch(() => {});
  try {
    const plugin = await usableSnapshotter(containerd, options.snapshotter);
    const unfitForOverlaybd = overlaybdProblem(plugin);
    const { snapshotter, labels } = options;
    const registry = registryAddress(hosts.originOf(reference.host));
    const wanted = { source, top, reference, registry, platform, snapshotter, labels };
    const image = { ...wanted, unfitForOverlaybd, kinds: LAYER_KINDS };
    return await pullImage(containerd, image, progress, signal);
  } catch (error) {
    progress.abandon();
    if (!signal.aborted) throw error;
    const found = `${messageOf(signal.reason)}; nothing of the image is kept`;
    throw new ObdError(ErrorCodes.FailedPrecondition, found, {}, error);
  } finally {
    containerd.close();
    await client.close();
  }
}

/** Checks this first: containerd itself reports only that a snapshotter "is not loaded", after fetching the manifest. */
async function usableSnapshotter(containerd: GrpcClient, name: string): Promise<SnapshotterPlugin> {
  const plugins = await snapshotterPlugins(containerd);
  const found = plugins.find((plugin) => plugin.name === name);
  if (found !== undefined && found.problem === undefined) return found;
  const usable = plugins.filter(({ problem }) => problem === undefined).map((each) => each.name);
  const state =
    found === undefined
      ? `containerd has no snapshotter of that name, but ${usable.join(', ')}; add [proxy_plugins.${name}] to its configuration and restart it`
      : `it did not start: ${found.problem}`;
  throw new ObdError(
    ErrorCodes.FailedPrecondition,
    `Cannot pull with the snapshotter "${name}": ${state}`,
  );
}

/** Returns why a snapshotter cannot make a root file system of overlaybd layers; undefined if it may. */
function overlaybdProblem({ name, isProxy }: SnapshotterPlugin): string | undefined {
  if (!isProxy) return "containerd's own snapshotters cannot serve one";
  return OTHER_SNAPSHOTTERS.includes(name) ? 'that snapshotter cannot serve one' : undefined;
}
