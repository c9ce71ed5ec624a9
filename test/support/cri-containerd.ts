/**
 * Configurations of containerd for tests that pull through CRI or the transfer service, and the search for a containerd
 * with the transfer service.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { PrivateContainerd } from './containerd-private.js';

type Version = readonly [major: number, minor: number];

/** A folder in PATH with a containerd of a version in this range, and its ctr; undefined if there is none. */
export function folderOfContainerd(from: Version, below?: Version): string | undefined {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const program = join(folder, 'containerd');
    if (!existsSync(program) || !existsSync(join(folder, 'ctr'))) continue;
    const said = execFileSync(program, ['--version'], { encoding: 'utf8' });
    const [, major = '0', minor = '0'] = /\bv?([0-9]+)\.([0-9]+)\.[0-9]+/.exec(said) ?? [];
    const found: Version = [Number(major), Number(minor)];
    if (isAtLeast(found, from) && !(below !== undefined && isAtLeast(found, below))) return folder;
  }
  return undefined;
}

function isAtLeast([major, minor]: Version, [wantedMajor, wantedMinor]: Version): boolean {
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

/** containerd 1.6 and 1.7, CRI with obd-ts; pods run from `sandboxImage`. */
export function criConfig(containerd: PrivateContainerd, sandboxImage: string): string {
  const { directory } = containerd;
  return `\
version = 2
root = "${directory}/containerd"
state = "${directory}/containerd-state"
[grpc]
address = "${containerd.socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "${directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "${sandboxImage}"
stream_server_port = "0"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "obd-ts"
disable_snapshot_annotations = false
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "${directory}/cni"
${proxyPlugin(containerd)}`;
}

/** containerd 2.1 and later, whose transfer service unpacks for obd-ts and names the image. */
export function transferConfig(containerd: PrivateContainerd, capabilities = ''): string {
  const { directory } = containerd;
  const unpack = (snapshotter: string) => `\
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux"
snapshotter = "${snapshotter}"
`;
  return `\
version = 3
root = "${directory}/containerd"
state = "${directory}/containerd-state"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[grpc]
address = "${containerd.socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "${directory}/opt"
${proxyPlugin(containerd)}${capabilities}
[proxy_plugins.obd-ts.exports]
enable_remote_snapshot_annotations = "true"
[plugins."io.containerd.transfer.v1.local"]
max_concurrent_unpacks = 4
${unpack('overlayfs')}${unpack('obd-ts')}`;
}

function proxyPlugin({ snapshotterSocket }: PrivateContainerd): string {
  return `\
[proxy_plugins.obd-ts]
type = "snapshot"
address = "${snapshotterSocket}"
`;
}
