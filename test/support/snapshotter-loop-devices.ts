/**
 * Replaces obd-blockd in tests of the snapshotter: real loop devices on one real ext4 file system, for any config, with the
 * daemon's guarantees (idempotent, `Busy` while in use), and a switch for its absence.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Device } from '../../src/blockd/blockd-client.js';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import type { Devices } from '../../src/snapshotter/image-mounts.js';

export class LoopDevices implements Devices {
  readonly directory: string;
  readonly attached = new Map<string, Device>();
  /** Attach calls that made a device. */
  made = 0;
  isDown = false;
  /** Error that attach() throws. */
  failure: ObdError | undefined;
  readonly #image: string;

  constructor() {
    this.directory = mkdtempSync('/var/tmp/obdl.');
    this.#image = join(this.directory, 'ext4');
    const tree = join(this.directory, 'tree');
    mkdirSync(join(tree, 'etc'), { recursive: true });
    mkdirSync(tree, { recursive: true, mode: 0o755 });
    writeFileSync(join(tree, 'etc/hello'), 'hello\n');
    execFileSync('mkfs.ext4', ['-q', '-F', '-d', tree, '-O', '^has_journal', this.#image, '4M']);
  }

  async endReads(): Promise<void> {}

  async attach(id: string, configPath: string): Promise<Device> {
    this.#checkUp();
    if (this.failure !== undefined) throw this.failure;
    const existing = this.attached.get(id);
    if (existing !== undefined) return existing;
    const path = execFileSync('losetup', ['--find', '--show', '--read-only', this.#image], {
      encoding: 'utf8',
    }).trim();
    this.made++;
    const device: Device = {
      id,
      configPath,
      path,
      transport: 'loop',
      sizeBytes: 4 << 20,
      layers: 1,
      remoteBytes: 0,
      remoteLayers: 0,
      provedLayers: 0,
      cachedBytes: 0,
      fetchedBytes: 0,
      fetchRequests: 0,
      readErrors: 0,
      nbdUri: '',
      state: 'attached',
      problem: '',
      waitingReads: 0,
      waitingMs: 0,
      waitingReason: '',
      fillState: '',
      fillProblem: '',
      hotPages: 0,
      hotPagesRead: 0,
    };
    this.attached.set(id, device);
    return device;
  }

  async detach(id: string): Promise<void> {
    this.#checkUp();
    const device = this.attached.get(id);
    if (device === undefined) return;
    execFileSync('losetup', ['--detach', device.path]);
    this.attached.delete(id);
  }

  async list(): Promise<Device[]> {
    this.#checkUp();
    return [...this.attached.values()];
  }

  /** As after a kill of the daemon: loses its devices and all record of them. */
  lose(): void {
    for (const { path } of this.attached.values()) {
      execFileSync('losetup', ['--detach', path]);
    }
    this.attached.clear();
  }

  remove(): void {
    this.isDown = false;
    this.lose();
    rmSync(this.directory, { recursive: true });
  }

  #checkUp(): void {
    if (this.isDown) throw new ObdError(ErrorCodes.Unavailable, 'Cannot reach obd-blockd');
  }
}
