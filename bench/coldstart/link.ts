/**
 * An emulated link: two network namespaces, and in each a TUN device of `link-shaper`, which gives the link its rate,
 * delay and queue. The registry is at the far end, everything that is measured at the near end.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import { run } from '../programs.js';
import { compiled } from './compiled.js';

const NEAR_ADDRESS = '10.231.0.1';
export const FAR_ADDRESS = '10.231.0.2';
const MTU_BYTES = 1500;
/** The least queue of a link; a fast one has as much as fits in one round trip. */
const QUEUE_BYTES_MIN = 256 << 10;

/** Of the file of the model server that is read whole, which one long transfer over the far link is compared with. */
export const FILE_BYTES = 200 << 20;

export interface LinkProfile {
  readonly name: 'slow' | 'fast' | 'far';
  readonly title: string;
  /** Bits a second in each direction; 0 has no limit. */
  readonly rate: number;
  readonly rttMs: number;
  /** Bytes of a transfer long enough to show the link's rate. */
  readonly calibrationBytes: number;
}

export const LINKS: readonly LinkProfile[] = [
  {
    name: 'slow',
    title: '100 Mbit/s, 20 ms',
    rate: 100e6,
    rttMs: 20,
    calibrationBytes: 16 << 20,
  },
  { name: 'fast', title: '1 Gbit/s, 2 ms', rate: 1e9, rttMs: 2, calibrationBytes: 100 << 20 },
  {
    name: 'far',
    title: '50 ms, no rate limit',
    rate: 0,
    rttMs: 50,
    calibrationBytes: FILE_BYTES,
  },
];

/** What the link really does, seen by curl at the near end. */
export interface LinkMeasure {
  readonly connectMs: number;
  /** Megabytes (1e6) a second of one long transfer. */
  readonly megabytesPerSecond: number;
}

/** Both namespaces. The link between them is laid, and laid anew, by lay(). */
export class Link {
  readonly near: string;
  readonly far: string;
  #shaper: ChildProcess | undefined;

  private constructor(id: string) {
    this.near = `obdcs-${id}-near`;
    this.far = `obdcs-${id}-far`;
  }

  static async make(): Promise<Link> {
    const link = new Link(`${process.pid}`);
    try {
      for (const namespace of [link.near, link.far]) {
        await run('ip', ['netns', 'add', namespace]);
        await run('ip', ['-n', namespace, 'link', 'set', 'dev', 'lo', 'up']);
        // Else one run's congestion window would begin where another's ended.
        const setting = ['sysctl', '-qw', 'net.ipv4.tcp_no_metrics_save=1'];
        await run('nsenter', [...inNamespace(namespace), ...setting]);
      }
      return link;
    } catch (error) {
      await link.remove();
      throw error;
    }
  }

  /** Replaces the link between the namespaces. */
  async lay(profile: LinkProfile): Promise<void> {
    await this.#cut();
    const bandwidthDelay = ((profile.rate / 8) * profile.rttMs) / 1000;
    const child = spawn(
      await compiled('link-shaper'),
      [
        ...[`/run/netns/${this.near}`, `/run/netns/${this.far}`, `${profile.rate}`],
        ...[`${profile.rttMs * 500}`, `${Math.max(QUEUE_BYTES_MIN, bandwidthDelay)}`],
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    this.#shaper = child;
    const ended = once(child, 'exit').then(() => {
      throw new ObdError(ErrorCodes.Host, 'Cannot emulate a link: link-shaper ended at its start');
    });
    await Promise.race([once(child.stdout!, 'data'), ended]);
    ended.catch(() => {});
    for (const [namespace, address] of [
      [this.near, NEAR_ADDRESS],
      [this.far, FAR_ADDRESS],
    ] as const) {
      await run('ip', ['-n', namespace, 'addr', 'add', `${address}/30`, 'dev', 'obdlink']);
      const settings = ['mtu', `${MTU_BYTES}`, 'txqueuelen', '10000', 'up'];
      await run('ip', ['-n', namespace, 'link', 'set', 'dev', 'obdlink', ...settings]);
    }
  }

  async #cut(): Promise<void> {
    const shaper = this.#shaper;
    this.#shaper = undefined;
    if (shaper === undefined || shaper.exitCode !== null) return;
    const ended = once(shaper, 'exit');
    shaper.stdin!.end();
    await ended;
  }

  async remove(): Promise<void> {
    await this.#cut();
    for (const namespace of [this.near, this.far]) {
      await run('ip', ['netns', 'delete', namespace]).catch(() => {});
    }
  }
}

/** Options of nsenter for a namespace; without `ip netns exec`, which would also hide mounts. */
export function inNamespace(namespace: string): string[] {
  return [`--net=/run/netns/${namespace}`];
}

/** One transfer over the link. @param path - Of the far storage server. */
async function transfer(link: Link, path: string): Promise<{ connect: number; total: number }> {
  const url = `http://${FAR_ADDRESS}:${STORAGE_PORT}${path}`;
  const format = '%{http_code} %{time_connect} %{time_total}';
  const curl = ['curl', '--silent', '--output', '/dev/null', '--write-out', format, url];
  const text = await run('nsenter', [...inNamespace(link.near), ...curl]);
  const [status, connect, total] = text.split(' ').map(Number);
  if (status !== 200)
    throw new ObdError(ErrorCodes.Io, `The link does not work: curl said ${text}`);
  return { connect: connect!, total: total! };
}

export const REGISTRY_PORT = 5000;
export const STORAGE_PORT = 5002;

/** Answers that every pull needs one after the other: HEAD or token, manifest, config. */
const PULL_ANSWERS = 3;

export function pullAnswersSeconds({ connectMs }: Pick<LinkMeasure, 'connectMs'>): number {
  return (PULL_ANSWERS * connectMs) / 1000;
}

/** Seconds that one GET of so many bytes takes over the link, its connection included. */
export async function secondsOfOneGet(link: Link, bytes: number): Promise<number> {
  return (await transfer(link, `/bytes/${bytes}`)).total;
}

export async function measureLink(link: Link, profile: LinkProfile): Promise<LinkMeasure> {
  const connects: number[] = [];
  for (let i = 0; i < 5; i++) connects.push((await transfer(link, '/bytes/1')).connect);
  const bytes = profile.calibrationBytes;
  const seconds = (await transfer(link, `/bytes/${bytes}`)).total;
  const connectMs = 1000 * connects.sort((a, b) => a - b)[2]!;
  return { connectMs, megabytesPerSecond: bytes / seconds / 1e6 };
}
