/**
 * Gives the benchmark and all that it starts most of the machine's CPU time while others want it too, by a control group of
 * its own. A host whose control groups cannot be changed is measured without; the table's idle and steal columns show it.
 */
import { existsSync, mkdirSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

const CGROUPS = '/sys/fs/cgroup';

/** What the link's program, which has real-time priority, may use of each second. */
const REAL_TIME_US = '800000';

interface Hierarchy {
  readonly root: string;
  readonly file: string;
  readonly most: string;
}

const HIERARCHIES: readonly Hierarchy[] = [
  { root: join(CGROUPS, 'cpu'), file: 'cpu.shares', most: '262144' },
  { root: CGROUPS, file: 'cpu.weight', most: '10000' },
];

export class CpuShare {
  readonly #folder: string | undefined;
  readonly #root: string;

  private constructor(root: string, folder: string | undefined) {
    this.#root = root;
    this.#folder = folder;
  }

  static take(): CpuShare {
    for (const { root, file, most } of HIERARCHIES) {
      const folder = join(root, `obdcs-${process.pid}`);
      try {
        mkdirSync(folder);
        if (existsSync(join(folder, file))) {
          writeFileSync(join(folder, file), most);
          const realTime = join(folder, 'cpu.rt_runtime_us');
          if (existsSync(realTime)) writeFileSync(realTime, REAL_TIME_US);
          writeFileSync(join(folder, 'cgroup.procs'), `${process.pid}`);
          return new CpuShare(root, folder);
        }
        rmdirSync(folder);
      } catch {
        // No such hierarchy, or none that can be changed.
      }
    }
    return new CpuShare('', undefined);
  }

  /** The control group for a container, as `ctr run --cgroup` wants it. */
  groupOf(namespace: string, id: string): string[] {
    if (this.#folder === undefined) return [];
    return ['--cgroup', join(this.#folder.slice(this.#root.length), namespace, id)];
  }

  /** All processes of the benchmark must have ended. */
  release(): void {
    if (this.#folder === undefined) return;
    writeFileSync(join(this.#root, 'cgroup.procs'), `${process.pid}`);
    // runc makes the group of a container in each hierarchy.
    for (const each of ['.', ...readdirSync(CGROUPS)]) {
      const folder = join(CGROUPS, each, basename(this.#folder));
      if (existsSync(folder)) rmdirSync(folder);
    }
  }
}
