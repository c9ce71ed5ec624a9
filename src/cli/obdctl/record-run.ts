/** `obdctl record`, step by step: pulls the image, asks obd-blockd to record it, runs a container, and ends the recording. */
import { access, constants, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { BlockdClient, type RecordedStart } from '../../blockd/blockd-client.js';
import { byteText } from '../../byte-text.js';
import { connectContainerd } from '../../containerd/connect.js';
import { ImageRecords } from '../../containerd/image-records.js';
import { ErrorCodes, hasCode, messageOf, ObdError } from '../../errors.js';
import { blockLayers } from '../../image/block-layers.js';
import { LAYER_KINDS } from '../../layers/layer-kinds.js';
import { commandDigest } from '../../load-order/command-line.js';
import { parseLoadOrder } from '../../load-order/load-order.js';
import { LOAD_ORDER_ARTIFACT } from '../../load-order/order-artifact.js';
import { chainIds } from '../../oci/image-identity.js';
import { type ImageSource, readSmallBlob } from '../../oci/image-store.js';
import { CONFIG_BYTES_MAX, parseImageConfig } from '../../oci/manifest.js';
import { parsePlatform } from '../../oci/platform.js';
import { type ImageReference, parseReference } from '../../oci/reference.js';
import { imageArgs, type StartCommand, startCommand } from '../../predict/start-command.js';
import { DockerCredentials } from '../../registry/docker-credentials.js';
import { RegistryClient } from '../../registry/registry-client.js';
import { RegistryHosts } from '../../registry/registry-hosts.js';
import { RegistrySource } from '../../registry/registry-image.js';
import { interruption } from '../interruption.js';
import { type ContainerMount, parseMount } from './container-spec.js';
import { checkUser } from './container-user.js';
import { printJson } from './json-option.js';
import { checkMergeable } from './published-order.js';
import { tracedImagePush } from './push-traced-image.js';
import { type RunningContainer, removeAbandoned, withContainer } from './record-container.js';
import { RpullProgress } from './rpull-progress.js';
import { pull } from './rpull-run.js';
import { startOf } from './start-options.js';

const PAGE_BYTES = 4096;
/** For an output or an answer that does not come. */
const UNTIL_MS_MAX = 600_000;
const POLL_MS = 200;
const POLL_MS_MAX = 5_000;
/** A longer line is searched in parts. */
const LINE_CHARACTERS_MAX = 1 << 16;

export interface RecordOptions {
  readonly time: number | undefined;
  readonly untilOutput: string | undefined;
  readonly untilHttp: string | undefined;
  readonly entrypoint: string | undefined;
  readonly args: string | undefined;
  readonly env: readonly string[];
  readonly user: string | undefined;
  readonly cwd: string | undefined;
  readonly mount: readonly string[];
  readonly net: string;
  readonly name: string | undefined;
  readonly publish: boolean;
  readonly output: string | undefined;
  /** The image that gets a trace layer. */
  readonly traceLayer: string | undefined;
  readonly address: string;
  readonly namespace: string;
  readonly snapshotter: string;
  readonly blockd: string;
  readonly platform: string | undefined;
  readonly plainHttp: boolean;
  readonly hostsDirectory: string;
  readonly json: boolean;
}

/**
 * @throws {ObdError} `FailedPrecondition` if a device of the image is attached, or the container ends before it should; what
 *   pulling, running and publishing throw.
 */
export async function runRecord(image: string, options: RecordOptions): Promise<void> {
  const { plainHttp, hostsDirectory } = options;
  const signal = interruption();
  const reference = parseReference(image);
  const mounts = options.mount.map(parseMount);
  const start = startOf(options);
  if (options.user !== undefined) checkUser(options.user);
  const pattern = options.untilOutput === undefined ? undefined : patternOf(options.untilOutput);
  await checkWritable(options.output);
  await checkSilent(options.untilHttp, signal);
  const hosts = new RegistryHosts(plainHttp ? [reference.host] : [], {}, hostsDirectory);
  const client = new RegistryClient({ hosts, credentials: new DockerCredentials() });
  const daemon = new BlockdClient(resolve(options.blockd));
  try {
    const source = new RegistrySource(client, reference, signal);
    const found = await describedImage(source, reference, options);
    const command = startCommand(found.config, start);
    const imageCommand = commandDigest(imageArgs(found.config));
    const started = { command: commandDigest(command.argv), imageCommand };
    const expected = { ...found.expected, ...started };
    if (options.publish) {
      const { host, repository } = reference;
      const { digest } = found.manifest;
      const type = LOAD_ORDER_ARTIFACT;
      const published = await client.referrers(host, repository, digest, type, signal);
      await checkMergeable(published, { ...started, names: expected.orderNames }, source);
    }
    const about = { ...found, source, reference };
    const { traceLayer } = options;
    const pushTraced = traceLayer && (await tracedImagePush(traceLayer, about, client, signal));
    for (const folder of await removeAbandoned(options)) {
      process.stderr.write(`Removed ${folder}, which a killed obdctl record left\n`);
    }
    const recorded = await withImage(image, options, async () => {
      return await recordStart({ ...found, expected }, command, mounts, pattern, daemon, options);
    });
    await written(options.output, recorded);
    const { order: document, ...numbers } = recorded;
    const order = parseLoadOrder(document, 'of the start');
    const traced = pushTraced ? await pushTraced(order) : '';
    if (options.json) printJson({ image: reference.toString(), ...numbers, traced });
    else {
      const pushed = traced === '' ? '' : `; pushed ${traceLayer}, ${traced}`;
      process.stdout.write(`${textOf(reference, numbers)}${pushed}\n`);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    const message = `${messageOf(signal.reason)}; nothing is recorded`;
    throw new ObdError(ErrorCodes.FailedPrecondition, message, {}, error);
  } finally {
    daemon.close();
    await client.close();
  }
}

/** Calls `use` while containerd has the image, and removes the image if it was not there before. */
async function withImage<T>(
  reference: string,
  options: RecordOptions,
  use: () => Promise<T>,
): Promise<T> {
  const containerd = connectContainerd(options.address, options.namespace);
  const name = parseReference(reference).toString();
  try {
    const images = new ImageRecords(containerd);
    const isThere = await images.get(name).then(
      () => true,
      (error: unknown) => {
        if (hasCode(error, ErrorCodes.NotFound)) return false;
        throw error;
      },
    );
    await pull({ ...options, reference, labels: {} }, new RpullProgress());
    try {
      return await use();
    } finally {
      // With its device, so that the next recording is as cold as this one.
      if (!isThere) await images.remove(name).catch(() => {});
    }
  } finally {
    containerd.close();
  }
}

async function recordStart(
  { expected, chainId, user }: DescribedImage,
  command: StartCommand,
  mounts: readonly ContainerMount[],
  pattern: RegExp | undefined,
  daemon: BlockdClient,
  options: RecordOptions,
): Promise<RecordedStart> {
  const { address, namespace, snapshotter, time, untilHttp, publish } = options;
  const signal = interruption();
  const isTimed = [time, pattern, untilHttp].some((each) => each !== undefined);
  const key = await daemon.record(expected, !isTimed);
  const output = new OutputWatch(pattern);
  const container = {
    ...{ address, namespace, snapshotter, chainId, command, mounts },
    user: options.user ?? user,
    isInHostNetwork: options.net === 'host',
  };
  const onOutput = (text: string) => output.take(text);
  return await withContainer(container, onOutput, async (running) => {
    const stop = new AbortController();
    const either = AbortSignal.any([stop.signal, signal]);
    try {
      const end = () => daemon.endRecording(key, publish, either);
      if (!isTimed) return await unlessFailed(running, end());
      await unlessFailed(running, until(options, output, running, either));
      return await end();
    } finally {
      stop.abort();
    }
  });
}

const userSchema = z.object({ config: z.object({ User: z.string().nullish() }).nullish() });

type DescribedImage = Awaited<ReturnType<typeof describedImage>>;

/**
 * The image as obd-blockd is told of it, its config, and the user whom that names.
 *
 * @throws {ObdError} `FailedPrecondition` for an image with a trace layer; as blockLayers(); what the source throws.
 */
async function describedImage(
  source: ImageSource,
  { host, repository }: ImageReference,
  { platform, name }: Pick<RecordOptions, 'platform' | 'name'>,
) {
  const wanted = platform === undefined ? undefined : parsePlatform(platform);
  const found = await blockLayers(source, LAYER_KINDS, wanted);
  const { layers, fileSystem, manifest, config: descriptor } = found;
  if (found.isTraced) {
    const message = `Cannot record a start of ${source.label}: it has a trace layer, and its pull unpacks that onto a device before the start; record the image that was given it, and push this one again by --trace-layer`;
    throw new ObdError(ErrorCodes.FailedPrecondition, message);
  }
  const bytes = await readSmallBlob(source, descriptor, CONFIG_BYTES_MAX);
  const config = parseImageConfig(bytes, `the config of ${source.label}`);
  const expected = {
    ...{ host, repository },
    manifest: manifest.digest,
    manifestBytes: manifest.size,
    manifestType: manifest.mediaType,
    loadOrder: '',
    orderNames: name === undefined ? [] : [name],
    layers: layers.map(({ lower: { digest, size, hashTree } }) => ({
      ...{ digest, sizeBytes: size },
      root: hashTree?.root ?? '',
    })),
  };
  const chainId = chainIds(config.rootfs.diff_ids).at(-1) ?? '';
  const user = userSchema.safeParse(config).data?.config?.User ?? '';
  return { expected, config, manifest, fileSystem, chainId, user };
}

/** Prints what the container says, and looks for an expression in it. */
class OutputWatch {
  readonly #pattern: RegExp | undefined;
  #line = '';
  isFound = false;

  constructor(pattern: RegExp | undefined) {
    this.#pattern = pattern;
  }

  take(text: string): void {
    process.stderr.write(text);
    if (this.#pattern === undefined || this.isFound) return;
    const lines = (this.#line + text).split('\n');
    this.isFound = lines.some((line) => this.#pattern?.test(line));
    this.#line = (lines.at(-1) ?? '').slice(-LINE_CHARACTERS_MAX);
  }
}

/** Resolves when the condition of the options is met, or the container has ended well where only a time was named. */
async function until(
  { time, untilHttp }: RecordOptions,
  output: OutputWatch,
  { exited }: RunningContainer,
  signal: AbortSignal,
): Promise<void> {
  if (time !== undefined) {
    await Promise.race([exited, sleep(time * 1000, undefined, { signal })]);
    return;
  }
  let hasExited = false;
  void exited.then(() => {
    hasExited = true;
  });
  const isMet = async () =>
    untilHttp === undefined ? output.isFound : await answers(untilHttp, signal);
  const lateMs = performance.now() + UNTIL_MS_MAX;
  const what = untilHttp === undefined ? 'its output' : `an answer of ${untilHttp}`;
  while (!(await isMet())) {
    signal.throwIfAborted();
    if (hasExited && !output.isFound) throw ended(`the container ended before ${what}`);
    if (performance.now() > lateMs) throw ended(`${what} did not come in ${UNTIL_MS_MAX / 1000} s`);
    await sleep(POLL_MS, undefined, { signal });
  }
}

async function answers(url: string, signal: AbortSignal): Promise<boolean> {
  try {
    const either = AbortSignal.any([signal, AbortSignal.timeout(POLL_MS_MAX)]);
    const response = await fetch(url, { signal: either });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

/** The answer of another server would end the recording at once. */
async function checkSilent(url: string | undefined, signal: AbortSignal): Promise<void> {
  if (url === undefined || !(await answers(url, signal))) return;
  const message = `Cannot record until ${url} answers: it answers already; end that server, or have the container listen elsewhere`;
  throw new ObdError(ErrorCodes.FailedPrecondition, message);
}

/** Before anything is published. */
async function checkWritable(path: string | undefined): Promise<void> {
  if (path === undefined) return;
  try {
    await access(dirname(resolve(path)), constants.W_OK);
  } catch (error) {
    const message = `Cannot write the load order to ${path}: ${messageOf(error)}`;
    throw new ObdError(ErrorCodes.Io, message, {}, error);
  }
}

async function written(
  path: string | undefined,
  { order, artifact }: RecordedStart,
): Promise<void> {
  if (path === undefined) return;
  try {
    await writeFile(path, order);
  } catch (error) {
    const done = artifact === '' ? 'the start was recorded' : 'the load order is published';
    const message = `Cannot write the load order to ${path}: ${messageOf(error)}; ${done}`;
    throw new ObdError(ErrorCodes.Io, message, {}, error);
  }
}

/** A start that fails is no start to prepare other nodes for. */
async function unlessFailed<T>({ exited }: RunningContainer, work: Promise<T>): Promise<T> {
  const failure = exited.then((status) => {
    if (status !== 0) throw ended(`the container ended with status ${status}`);
    return work;
  });
  return await Promise.race([work, failure]);
}

function ended(why: string): ObdError {
  const remedy = 'nothing is published; see its output above, and --net, --mount, --env and --args';
  return new ObdError(ErrorCodes.FailedPrecondition, `Cannot record the start: ${why}; ${remedy}`);
}

function patternOf(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    const message = `Cannot use --until-output ${text}: ${messageOf(error)}`;
    throw new ObdError(ErrorCodes.InvalidArgument, message);
  }
}

function textOf(reference: ImageReference, numbers: Omit<RecordedStart, 'order'>): string {
  const { pages, artifact, publishedStarts, publishedPages, hotBytes } = numbers;
  const recorded = `Recorded ${reference}: ${pages} pages, ${byteText(pages * PAGE_BYTES)}`;
  const hot = `hot blob ${byteText(hotBytes)}`;
  if (artifact === '') return `${recorded}; ${hot}; not published`;
  const starts = `${publishedStarts} ${publishedStarts === 1 ? 'start' : 'starts'}`;
  return `${recorded}; published ${artifact} of ${starts}, ${publishedPages} pages, ${hot}`;
}
