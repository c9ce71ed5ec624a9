/**
 * Replaces the kernel's transports in tests of the device table. Tests can delay it, make it fail, and mark devices as
 * in use.
 */
import assert from 'node:assert/strict';
import type {
  AttachedDevice,
  OrphanedDevice,
  Transport,
  TransportName,
} from '../../src/blockdev/transport.js';
import type { VirtualDisk } from '../../src/blockdev/virtual-disk.js';
import { ErrorCodes, ObdError } from '../../src/errors.js';

export class TransportDouble implements Transport {
  readonly name: TransportName;
  readonly capabilities = { write: true, discard: true, resize: false };
  readonly attached: string[] = [];
  /** A device that an earlier process left: the path of a whole one, or undefined. */
  readonly left = new Map<string, string | undefined>();
  readonly released: string[] = [];
  readonly inUse = new Set<string>();
  /** A device whose detach() releases its node and then fails. */
  readonly stuck = new Set<string>();
  refusal: Error | undefined;
  /** attach(), resume() and detach() wait for it. */
  gate: Promise<void> = Promise.resolve();
  readonly #working = new Set<string>();
  disk: VirtualDisk | undefined;

  constructor(name: TransportName) {
    this.name = name;
  }

  async unavailableReason(): Promise<string | undefined> {
    return undefined;
  }

  async attach(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    await this.#work(id);
    if (this.refusal !== undefined) throw this.refusal;
    return this.#serve(id, disk);
  }

  async orphans(): Promise<OrphanedDevice[]> {
    return [...this.left].map(([id, path]) => ({ id, path }));
  }

  async resume(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    await this.#work(id);
    if (this.refusal !== undefined) throw this.refusal;
    assert.ok(this.left.delete(id), `nothing left of ${id}`);
    return this.#serve(id, disk);
  }

  async clear(id: string): Promise<void> {
    await this.#work(id);
    if (this.inUse.has(id))
      throw new ObdError(ErrorCodes.Busy, `Cannot clear ${id}: it is mounted`);
    this.left.delete(id);
  }

  #serve(id: string, disk: VirtualDisk): AttachedDevice {
    this.attached.push(id);
    this.disk = disk;
    const isAttached = () => this.attached.includes(id);
    return {
      path: `/dev/test-${id}`,
      get isGone() {
        return !isAttached();
      },
      detach: () => this.#detach(id),
      release: async () => {
        this.released.push(id);
      },
    };
  }

  async #detach(id: string): Promise<void> {
    await this.#work(id);
    if (this.inUse.has(id))
      throw new ObdError(ErrorCodes.Busy, `Cannot detach ${id}: it is mounted`);
    if (this.attached.includes(id)) this.attached.splice(this.attached.indexOf(id), 1);
    if (this.stuck.has(id)) throw new ObdError(ErrorCodes.Busy, `Cannot free what ${id} used`);
  }

  /** One call at a time for each id. */
  async #work(id: string): Promise<void> {
    assert.ok(!this.#working.has(id), `two at a time on ${id}`);
    this.#working.add(id);
    await this.gate;
    this.#working.delete(id);
  }
}
