/**
 * Which start is measured when: rounds, in each the links, in each the images, and then the ways one after the other, each
 * time in another order.
 */
import { interruption } from '../../src/cli/interruption.js';
import { type Measured, measureCell } from './cell.js';
import type { CpuShare } from './cpu-share.js';
import { FarRegistry } from './far-registry.js';
import { repositoryOf, storedImages, trimImages } from './image-store.js';
import {
  Link,
  type LinkMeasure,
  type LinkProfile,
  measureLink,
  pullAnswersSeconds,
  secondsOfOneGet,
} from './link.js';
import type { Programs } from './peer-programs.js';
import { type Reference, referenceOf } from './reference.js';
import type { Way } from './way.js';
import type { Workload } from './workloads.js';

export interface Plan {
  readonly workloads: readonly Workload[];
  readonly links: readonly LinkProfile[];
  readonly ways: readonly Way[];
  readonly rounds: number;
  readonly programs: Programs;
  readonly share: CpuShare;
  /** Leaves cells out that would begin later, once all images are made. */
  readonly milliseconds: number;
  /** Whether an earlier run has the cell already. */
  readonly isDone: (cell: Cell) => boolean;
  readonly say: (step: string) => void;
  readonly onResult: (result: CellResult) => void;
}

export interface Cell {
  readonly image: string;
  readonly link: string;
  readonly way: string;
  readonly round: number;
}

export interface CellResult extends Cell {
  readonly measured: Measured | undefined;
  /** Why it has failed. */
  readonly problem: string | undefined;
}

/** The least that a start takes on a link, without the container's own time. */
export interface Limit {
  readonly image: string;
  readonly link: string;
  /** One GET of the touched pages as one zstd stream, and three answers of the registry one after the other. */
  readonly networkSeconds: number;
}

export interface PlanMeasures {
  readonly links: Readonly<Record<string, LinkMeasure>>;
  readonly references: Readonly<Record<string, Pick<Reference, 'touchedBytes' | 'zstdBytes'>>>;
  readonly limits: readonly Limit[];
  /** Cells for which the time was too short. */
  readonly leftOut: number;
}

export async function measurePlan(plan: Plan): Promise<PlanMeasures> {
  const { workloads, links, ways, rounds, programs, say } = plan;
  const stored = new Map<Workload, string[]>();
  const references = new Map<Workload, Reference>();
  for (const workload of workloads) {
    say(`${workload.name}: its images`);
    const needed = ways
      .filter((way) => isRun(way, workload))
      .flatMap(({ variant }) => variant ?? []);
    stored.set(workload, await storedImages({ workload, programs }, [...new Set(needed)]));
    references.set(workload, await referenceOf(workload));
  }
  await trimImages();
  const measures: Record<string, LinkMeasure> = {};
  const limits: Limit[] = [];
  let leftOut = 0;
  const deadline = performance.now() + plan.milliseconds;
  const link = await Link.make();
  const undo: (() => Promise<unknown>)[] = [() => link.remove()];
  try {
    const registry = await FarRegistry.start(link);
    undo.push(() => registry.stop());
    for (let round = 0; round < rounds; round++) {
      for (const profile of links) {
        await link.lay(profile);
        const measure = await measureLink(link, profile);
        measures[profile.name] ??= measure;
        const { connectMs, megabytesPerSecond } = measure;
        say(
          `${profile.name} (${profile.title}): connects in ${connectMs.toFixed(1)} ms, carries ${megabytesPerSecond.toFixed(1)} MB/s`,
        );
        for (const [i, workload] of workloads.entries()) {
          const reference = references.get(workload)!;
          const planned = rotated(ways, round + i).filter((way) => isRun(way, workload));
          if (planned.length === 0) continue;
          const cells = planned
            .map((way) => ({ way, cell: cellOf(workload, profile, way, round) }))
            .filter(({ cell }) => !plan.isDone(cell));
          if (performance.now() > deadline) {
            leftOut += cells.length;
            continue;
          }
          // Also where all was measured by an earlier run.
          if (!limits.some((each) => each.image === workload.name && each.link === profile.name)) {
            const seconds = await secondsOfOneGet(link, reference.zstdBytes);
            const networkSeconds = seconds + pullAnswersSeconds(measure);
            limits.push({ image: workload.name, link: profile.name, networkSeconds });
          }
          if (cells.length === 0) continue;
          await registry.clear();
          for (const folder of stored.get(workload)!) await registry.add(folder);
          for (const { way, cell } of cells) {
            if (performance.now() > deadline) leftOut += 1;
            else
              plan.onResult(
                await measureOne(plan, cell, { workload, way, link, registry, reference }),
              );
          }
        }
      }
    }
  } finally {
    for (const step of undo.reverse()) await step();
  }
  const summaries = [...references].map(([{ name }, { touchedBytes, zstdBytes }]) => [
    name,
    { touchedBytes, zstdBytes },
  ]);
  return { links: measures, references: Object.fromEntries(summaries), limits, leftOut };
}

function rotated<T>(all: readonly T[], by: number): T[] {
  const from = by % Math.max(1, all.length);
  return [...all.slice(from), ...all.slice(0, from)];
}

function cellOf(workload: Workload, link: LinkProfile, way: Way, round: number): Cell {
  return { image: workload.name, link: link.name, way: way.name, round };
}

/** Some ways run some images only. */
function isRun(way: Way, { name }: Workload): boolean {
  return way.images === undefined || way.images.includes(name);
}

interface Scene {
  readonly workload: Workload;
  readonly way: Way;
  readonly link: Link;
  readonly registry: FarRegistry;
  readonly reference: Reference;
}

async function measureOne(plan: Plan, cell: Cell, scene: Scene): Promise<CellResult> {
  const { programs, share, say } = plan;
  const name = `${cell.link} ${cell.image} ${cell.way}`;
  try {
    const repository = await repositoryOf(scene.workload);
    const measured = await measureCell({ ...scene, programs, share, repository });
    const { ready, bytes, requests } = measured;
    say(
      `${name}: ready after ${ready.toFixed(2)} s, ${(bytes / 1e6).toFixed(1)} MB in ${requests} requests`,
    );
    return { ...cell, measured, problem: undefined };
  } catch (error) {
    interruption().throwIfAborted();
    const problem = `${error}`;
    say(`${name}: failed: ${problem}`);
    return { ...cell, measured: undefined, problem };
  }
}
