/**
 * One measured start: new daemons with empty state, page cache dropped, then pull and run, and once more warm. Times begin
 * with the pull's start.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { interruption } from '../../src/cli/interruption.js';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import { type LoadOrder, parseLoadOrder } from '../../src/load-order/load-order.js';
import { run } from '../programs.js';
import { type AdviceUse, hotUse, unreadShare } from './advice-use.js';
import type { CpuShare } from './cpu-share.js';
import { FAR_HOST, type FarRegistry } from './far-registry.js';
import type { RequestRecord } from './far-server.js';
import { inNamespace, type Link, secondsOfOneGet } from './link.js';
import { otherStart, type StartedCommand } from './other-start.js';
import type { Programs } from './peer-programs.js';
import { leaveOutHotBlob, publishedOrder } from './published-order.js';
import type { Reference } from './reference.js';
import { type CpuTime, Services } from './services.js';
import type { Way } from './way.js';
import type { Workload } from './workloads.js';

/** A start that takes longer has failed. */
const RUN_MS_MAX = 300_000;

/** The snapshotter lets a device go seconds after its image. */
const KEPT_MS_MAX = 60_000;

/** Seconds since the start of the pull, unless named otherwise. */
export interface Measured {
  readonly pull: number;
  readonly firstRequest: number;
  /** Arrival of the first request for a part of a layer. */
  readonly firstData: number;
  readonly firstOutput: number;
  readonly ready: number;
  /** From `ctr run` to ready, in the second start. */
  readonly warm: number;
  readonly bytes: number;
  readonly requests: number;
  /** The longest chain of isAnswer() requests one after the other that ended before the pull did. */
  readonly pullChain: number;
  /** From the start of the pull to ready. */
  readonly cpu: CpuTime;
  /** Of the daemons, until they served. */
  readonly ownStart: CpuTime;
  /** Per cent of the machine's CPU time, from the start of the pull to ready. */
  readonly idlePercent: number;
  readonly stealPercent: number;
  /** Undefined for a way that knows nothing of the start. */
  readonly advice: AdviceUse | undefined;
}

export interface CellSetup {
  readonly way: Way;
  readonly workload: Workload;
  readonly repository: string;
  readonly link: Link;
  readonly registry: FarRegistry;
  readonly programs: Programs;
  readonly share: CpuShare;
  readonly reference: Reference;
}

const now = (): number => Number(process.hrtime.bigint()) / 1e6;

/** @throws {ObdError} `Io` if a program fails, or the container printed other than the reference start. */
export async function measureCell(setup: CellSetup): Promise<Measured> {
  const { way, registry, link, programs } = setup;
  const image = `${setup.repository}:${way.variant?.name ?? 'plain'}`;
  const reference = `${FAR_HOST}/${image}`;
  const kept = way.keeps === undefined ? undefined : await keptOf(way.keeps, setup, reference);
  await showArtifacts(setup, reference);
  if (way.isOrderAlone === true) await leaveOutHotBlob(registry, image);
  const isKnown = way.publishers !== undefined || way.judgedBy !== undefined;
  const known = isKnown ? await publishedOrder(registry, image) : undefined;
  const isAlone = known !== undefined && way.isOrderAlone === true;
  const orderSeconds = isAlone ? await secondsOfOneGet(link, known.chunkBytes) : undefined;
  const ownCommand = commandOf(setup);
  const services = await Services.make(inNamespace(link.near), programs.path);
  try {
    if (kept !== undefined) await moveFolder(kept, services.file(way.keeps!));
    await way.start(services);
    const ownStart = services.cpuTime();
    await run('sync', []);
    writeFileSync('/proc/sys/vm/drop_caches', '3');
    registry.beginLog();
    const machine = machineTicks();
    const begun = now();
    const seconds = (at: number): number => (at - begun) / 1000;
    await services.run(way.pull(services, reference), limitedTime());
    const pulled = now();
    const start = await startContainer(setup, services, reference, 'cold', ownCommand);
    const spent = machineTicks().map((ticks, i) => ticks - machine[i]!);
    const all = spent.reduce((sum, ticks) => sum + ticks, 0);
    const requests = await registry.log();
    const warm = await startContainer(setup, services, reference, 'warm', ownCommand);
    const read = way.judgedBy && (await readOf(way.judgedBy, setup, services, reference));
    const unread = known && read ? unreadShare(known.order, read, requests) : undefined;
    const data = requests.find(isData);
    return {
      advice: known && { ...hotUse(known, requests, begun), orderSeconds, unreadShare: unread },
      pull: seconds(pulled),
      firstRequest: seconds(requests[0]?.at ?? Number.NaN),
      firstData: seconds(data?.at ?? Number.NaN),
      firstOutput: seconds(start.firstOutput),
      ready: seconds(start.ready),
      warm: (warm.ready - warm.begun) / 1000,
      bytes: requests.reduce((sum, { bytes }) => sum + bytes, 0),
      requests: requests.length,
      pullChain: chain(requests.filter((request) => request.end <= pulled && isAnswer(request))),
      cpu: {
        daemons: start.cpu.daemons - ownStart.daemons,
        containerd: start.cpu.containerd - ownStart.containerd,
      },
      ownStart,
      idlePercent: (100 * (spent[3]! + spent[4]!)) / all,
      stealPercent: (100 * spent[7]!) / all,
    };
  } catch (error) {
    throw new ObdError(ErrorCodes.Io, `${error}\n${endsOfLogs(services)}`, {}, error);
  } finally {
    await services.stop();
  }
}

/** Makes the registry show what earlier nodes of the way have published, and nothing else. */
async function showArtifacts(setup: CellSetup, reference: string): Promise<void> {
  const { way, registry, repository } = setup;
  const { publishers = 0, isMisled = false } = way;
  const setOf = (count: number) => `${way.variant?.name}-${isMisled ? 'misled-' : ''}${count}`;
  let known = publishers;
  while (!(await registry.showArtifacts(repository, setOf(known))) && known > 0) known--;
  while (known < publishers) {
    const sinceMs = Date.now();
    await publishOnce(setup, reference);
    known++;
    await registry.keepArtifacts(repository, setOf(known), sinceMs);
  }
}

/** Starts the container once on another node, and waits until that has published its load order. */
async function publishOnce(setup: CellSetup, reference: string): Promise<void> {
  const { way, link, programs, registry, repository } = setup;
  const services = await Services.make(inNamespace(link.near), programs.path);
  try {
    const before = await registry.artifacts(repository);
    await way.start(services);
    await services.run(way.pull(services, reference), limitedTime());
    const command = way.isMisled === true ? otherStart(setup.reference) : commandOf(setup);
    await startContainer(setup, services, reference, 'earlier', command);
    const untilMs = now() + KEPT_MS_MAX;
    while ((await registry.artifacts(repository)) === before) {
      if (now() > untilMs) {
        throw new ObdError(ErrorCodes.Io, `${way.name} publishes nothing\n${endsOfLogs(services)}`);
      }
      await sleep(100);
    }
    await services.run(services.ctr('images', 'rm', '--sync', reference), limitedTime());
  } finally {
    await services.stop();
  }
}

/** Starts the container once, removes its image, and returns a copy of what is kept of that. */
async function keptOf(kept: string, setup: CellSetup, reference: string): Promise<string> {
  const { way, link, programs } = setup;
  const services = await Services.make(inNamespace(link.near), programs.path);
  try {
    await way.start(services);
    await services.run(way.pull(services, reference), limitedTime());
    await startContainer(setup, services, reference, 'earlier', commandOf(setup));
    const folder = await filledFolder(kept, setup, services, reference);
    const copy = await mkdtemp('/var/tmp/obdcs-kept.');
    await cp(folder, copy, { recursive: true });
    return copy;
  } finally {
    await services.stop();
  }
}

/** What a container read that was started once, as its node recorded it. */
async function readOf(
  kept: string,
  setup: CellSetup,
  services: Services,
  reference: string,
): Promise<LoadOrder> {
  const folder = await filledFolder(kept, setup, services, reference);
  const path = join(folder, readdirSync(folder).find(isDocument)!);
  return parseLoadOrder(readFileSync(path), path);
}

/** Removes the image, and waits until something is kept of it. */
async function filledFolder(
  kept: string,
  { way }: CellSetup,
  services: Services,
  reference: string,
): Promise<string> {
  await services.run(services.ctr('images', 'rm', '--sync', reference), limitedTime());
  const folder = services.file(kept);
  const untilMs = now() + KEPT_MS_MAX;
  while (!existsSync(folder) || !readdirSync(folder).some(isDocument)) {
    if (now() > untilMs) throw new ObdError(ErrorCodes.Io, `${way.name} keeps nothing`);
    await sleep(100);
  }
  return folder;
}

function isDocument(name: string): boolean {
  return name.endsWith('.json');
}

function commandOf({ workload, reference }: CellSetup): StartedCommand {
  return { command: workload.command, output: reference.output };
}

async function moveFolder(from: string, to: string): Promise<void> {
  await cp(from, to, { recursive: true });
  await rm(from, { recursive: true });
}

function limitedTime(): AbortSignal {
  return AbortSignal.any([interruption(), AbortSignal.timeout(RUN_MS_MAX)]);
}

interface Start {
  /** Milliseconds of now(). */
  readonly begun: number;
  readonly firstOutput: number;
  readonly ready: number;
  readonly cpu: CpuTime;
}

async function startContainer(
  { way, share }: CellSetup,
  services: Services,
  reference: string,
  id: string,
  { command, output: expected }: StartedCommand,
): Promise<Start> {
  const group = share.groupOf(services.namespace, id);
  const options = ['run', '--rm', ...group, '--snapshotter', way.snapshotter, reference, id];
  const { file, args, env } = services.command(...services.ctr(...options, ...command));
  const begun = now();
  const signal = limitedTime();
  const child = spawn(file, args, { env, signal, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'close');
  const problem = text(child.stderr);
  let output = '';
  let firstOutput = Number.NaN;
  let ready = Number.NaN;
  let cpu: CpuTime | undefined;
  child.stdout.on('data', (bytes: Buffer) => {
    const at = now();
    if (output === '') firstOutput = at;
    output += bytes.toString('latin1');
    if (Number.isNaN(ready) && /^ready.*\n/m.test(output)) {
      ready = at;
      cpu = services.cpuTime();
    }
  });
  const [status] = await ended;
  const said = Buffer.from(output, 'latin1').toString();
  if (status !== 0) {
    throw new ObdError(ErrorCodes.Io, `The container failed: ${said}${await problem}`);
  }
  if (said !== expected) {
    const message = `Wrong output of ${way.name}: ${JSON.stringify(said)}, not ${JSON.stringify(expected)}`;
    throw new ObdError(ErrorCodes.Corrupt, message);
  }
  return {
    begun,
    firstOutput,
    ready: Number.isNaN(ready) ? firstOutput : ready,
    cpu: cpu ?? services.cpuTime(),
  };
}

/** A part of a layer; what is JSON on the storage is the image's config. */
function isData({ server, status, bytes }: RequestRecord): boolean {
  return server === 'storage' && (status === 200 || status === 206) && bytes > CONFIG_BYTES_MAX;
}

/** Larger than any config here, and smaller than what any way fetches of a layer at once. */
const CONFIG_BYTES_MAX = 8192;

/**
 * Something small that a pull may wait for: a manifest, a config, a probe. A request and its redirect, or its refusal
 * without a token, count once.
 */
function isAnswer({ server, status, bytes }: RequestRecord): boolean {
  const isComplete = status !== 307 && status !== 401;
  return server !== 'token' && isComplete && (server === 'registry' || bytes <= CONFIG_BYTES_MAX);
}

/** The greatest number of requests of which each began after another had ended. */
function chain(requests: readonly RequestRecord[]): number {
  let count = 0;
  let until = Number.NEGATIVE_INFINITY;
  for (const { at, end } of requests.toSorted((a, b) => a.end - b.end)) {
    if (at < until) continue;
    count += 1;
    until = end;
  }
  return count;
}

/** user, nice, system, idle, iowait, irq, softirq, steal of all processors. */
function machineTicks(): number[] {
  const [line] = readFileSync('/proc/stat', 'latin1').split('\n');
  return line!.split(/\s+/).slice(1, 9).map(Number);
}

function endsOfLogs(services: Services): string {
  const names = ['blockd', 'snapshotter', 'containerd'];
  return names
    .flatMap((name) => {
      try {
        const lines = readFileSync(services.file(`${name}.log`), 'utf8')
          .trim()
          .split('\n');
        return [`--- end of ${name}.log`, ...lines.slice(-10)];
      } catch {
        return [];
      }
    })
    .join('\n');
}
