/**
 * The user's view: an image of twelve layers in a registry on this machine, opened by obd-blockd, and read through its
 * NBD socket; compared with qemu-nbd serving the same disk, raw and as compressed qcow2.
 *
 * The servers take turns within each round, so that other load on the machine affects all of them. Each figure is the
 * median of its rounds; the JSON also has the lowest and the highest. All of the disk is in the daemon's cache, and all
 * files in the page cache, before a rate is measured.
 */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { textTable } from '../src/cli/obdctl/text-table.js';
import { writeImageConfig } from '../src/image/image-config.js';
import { LocalRegistry } from './local-registry.js';
import { MeasuredDaemon } from './measured-daemon.js';
import { fio, QemuNbd, residentMib, run, type Workload } from './programs.js';
import { type Sample, sampleOf } from './sample.js';
import { DISK_BYTES, makeQcow2, makeSampleImage, type SampleImage } from './sample-image.js';

const OPENINGS = 3;
const KILLS = 5;
const ROUNDS = 5;
const RUN_SECONDS = 1;
const DEVICES = 10;
const WORKLOADS: readonly Workload[] = [
  { name: '4 KiB random, depth 1', unit: 'reads/s', rw: 'randread', blockBytes: 4096, depth: 1 },
  { name: '4 KiB random, depth 32', unit: 'reads/s', rw: 'randread', blockBytes: 4096, depth: 32 },
  { name: '1 MiB sequential, depth 1', unit: 'MiB/s', rw: 'read', blockBytes: 1 << 20, depth: 1 },
  { name: '1 MiB sequential, depth 8', unit: 'MiB/s', rw: 'read', blockBytes: 1 << 20, depth: 8 },
];
const SERVERS = ['obd-blockd', 'qemu-nbd raw', 'qemu-nbd qcow2'] as const;

interface Figure {
  readonly name: string;
  readonly unit: string;
  /** In the order of SERVERS; some figures are of the first alone. */
  readonly samples: readonly Sample[];
}

export interface Report {
  readonly date: string;
  readonly machine: string;
  readonly image: string;
  readonly figures: readonly Figure[];
}

/** @param say - Called with the next step. @throws {ObdError} `Host` if a program is not installed. */
export async function measureWholePath(say: (step: string) => void): Promise<Report> {
  const folder = await mkdtemp('/var/tmp/obd-bench-');
  const undo: (() => Promise<unknown>)[] = [() => rm(folder, { recursive: true })];
  try {
    say('making an image of twelve layers');
    const image = makeSampleImage(folder, DISK_BYTES);
    const qcow2 = join(folder, 'disk.qcow2');
    await makeQcow2(image, qcow2);
    say('pushing it');
    const registry = await LocalRegistry.start(folder);
    undo.push(() => registry.stop());
    const config = await pushImage(image, registry, folder);
    say('opening it');
    const figures = await measureOpenings(config, folder);
    say('killing the daemon');
    figures.push(await measureStalls(config, folder));
    say('reading it');
    const daemon = await MeasuredDaemon.start(folder);
    undo.push(() => daemon.stop());
    figures.push(...(await measureReads(image, qcow2, config, daemon, folder, undo)));
    const { layerBytes } = image;
    return {
      date: new Date().toISOString(),
      machine: `${cpus().length} x ${cpus()[0]?.model}, Linux ${release()}, Node ${process.version}`,
      image: `${mib(DISK_BYTES)} MiB in ${image.layers.length} layers of ${mib(layerBytes)} MiB, qcow2 ${mib((await stat(qcow2)).size)} MiB`,
      figures,
    };
  } finally {
    for (const step of undo.reverse()) await step();
  }
}

/** @returns The path of the image's config. */
async function pushImage(
  image: SampleImage,
  registry: LocalRegistry,
  folder: string,
): Promise<string> {
  const lowers = [];
  for (const path of image.layers) lowers.push(await registry.push(path));
  const config = join(folder, 'config.v1.json');
  await writeImageConfig(config, { repoBlobUrl: registry.blobsUrl, lowers });
  return config;
}

/** From the call to a block device that answers reads: with an empty cache, and with the cache that this left. */
async function measureOpenings(config: string, folder: string): Promise<Figure[]> {
  const cold: number[] = [];
  const cached: number[] = [];
  for (let i = 0; i < OPENINGS; i++) {
    const daemon = await MeasuredDaemon.start(folder);
    try {
      for (const times of [cold, cached]) {
        const start = performance.now();
        await daemon.client.attach('bench', config);
        times.push(performance.now() - start);
        await daemon.client.detach('bench');
      }
    } finally {
      await daemon.stop();
    }
  }
  return [
    { name: 'open, empty cache', unit: 'ms', samples: [sampleOf(cold)] },
    { name: 'open, cached', unit: 'ms', samples: [sampleOf(cached)] },
  ];
}

/**
 * From the daemon's death to the answer of a read that began then. The next daemon is started at once, and the bytes
 * are in the cache.
 */
async function measureStalls(config: string, folder: string): Promise<Figure> {
  const daemon = await MeasuredDaemon.start(folder);
  try {
    const { path } = await daemon.client.attach('bench', config);
    const how = ['of=/dev/null', 'bs=4096', 'count=1', 'iflag=direct', 'status=none'];
    const stalls: number[] = [];
    for (let i = 0; i < KILLS; i++) {
      const start = performance.now();
      const serving = daemon.restart();
      await run('dd', [`if=${path}`, ...how]);
      stalls.push(performance.now() - start);
      await serving;
      // attach() waits for a recovery in progress.
      await daemon.client.attach('bench', config);
    }
    return { name: 'killed, until a read is answered', unit: 'ms', samples: [sampleOf(stalls)] };
  } finally {
    await daemon.client.detach('bench').catch(() => {});
    await daemon.stop();
  }
}

async function measureReads(
  image: SampleImage,
  qcow2Path: string,
  config: string,
  daemon: MeasuredDaemon,
  folder: string,
  undo: (() => Promise<unknown>)[],
): Promise<Figure[]> {
  const { nbdUri } = await daemon.client.attach('bench-0', config);
  // Reads everything into the cache, and checks that all three disks are the same.
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', nbdUri, image.raw]);
  const raw = await QemuNbd.start(image.raw, 'raw', join(folder, 'raw.sock'));
  undo.push(() => raw.stop());
  const qcow2 = await QemuNbd.start(qcow2Path, 'qcow2', join(folder, 'qcow2.sock'));
  undo.push(() => qcow2.stop());
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', qcow2.uri, image.raw]);

  const figures: Figure[] = [];
  for (const workload of WORKLOADS) {
    const rates = SERVERS.map((): number[] => []);
    for (let round = 0; round < ROUNDS; round++) {
      for (const [i, uri] of [nbdUri, raw.uri, qcow2.uri].entries()) {
        rates[i]?.push((await fio(workload, { uri }, RUN_SECONDS)).rate);
      }
    }
    figures.push({ name: workload.name, unit: workload.unit, samples: rates.map(sampleOf) });
  }

  const one = [daemon.pid, raw.pid, qcow2.pid].map((pid) => sampleOf([residentMib(pid)]));
  figures.push({ name: 'resident, one device', unit: 'MiB', samples: one });
  const [random] = WORKLOADS;
  for (let i = 1; i < DEVICES; i++) {
    const device = await daemon.client.attach(`bench-${i}`, config);
    await fio(random!, { uri: device.nbdUri }, RUN_SECONDS);
  }
  const ten = [sampleOf([residentMib(daemon.pid)])];
  figures.push({ name: `resident, ${DEVICES} devices`, unit: 'MiB', samples: ten });
  return figures;
}

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(0);

export function figuresTable({ date, machine, image, figures }: Report): string {
  const columns = ['', 'unit', ...SERVERS, 'to raw', 'to qcow2'].map((title, i) => ({
    title,
    right: i > 1,
  }));
  const rows = figures.map(({ name, unit, samples }) => {
    const [own, ...others] = SERVERS.map((_, i) => samples[i]?.median);
    const ratios = others.map((other) =>
      own === undefined || other === undefined ? '' : `${(own / other).toFixed(2)} x`,
    );
    return [name, unit, ...[own, ...others].map((value) => value?.toString() ?? ''), ...ratios];
  });
  return `${date}, ${machine}\n${image}\n\n${textTable(columns, rows)}`;
}
