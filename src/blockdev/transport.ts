/**
 * A way to turn a VirtualDisk into a block device of this kernel. Each sibling folder is one; whoever
 * attaches knows nothing of how it is done.
 */
import type { VirtualDisk } from './virtual-disk.js';

export interface AttachedDevice {
  /** The device node, e.g. /dev/loop3. It exists, and answers reads, when attach() resolves. */
  readonly path: string;
  /**
   * Whether the node has been given back, so that by now it may be another's: nobody may use `path` any more. True
   * before detach() has resolved where something behind the node could not be freed.
   */
  readonly isGone: boolean;
  /**
   * Takes the device away and frees what it used. Idempotent.
   * @throws {ObdError} `Busy` while it is mounted or open; the device then stays as it was. `Busy` or `Io` with
   *   `isGone` true for what is left behind the node; the next call goes on with that.
   */
  detach(): Promise<void>;
}

export interface Transport {
  readonly name: string;
  /**
   * @param id - Names the device among this daemon's; [A-Za-z0-9._-]{1,64}.
   * @throws {ObdError} `Host` if this host lacks what the transport needs, `Busy`, `Io`; what reading the first bytes of
   *   the disk throws. Nothing is left behind.
   */
  attach(id: string, disk: VirtualDisk): Promise<AttachedDevice>;
}
