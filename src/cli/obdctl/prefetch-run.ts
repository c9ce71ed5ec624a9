/** `obdctl prefetch`, step by step: finds the image's blobs, has obd-blockd fetch them, and waits if asked to. */
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlockdClient, type Prefetch } from '../../blockd/blockd-client.js';
import { byteText } from '../../byte-text.js';
import { ErrorCodes, ObdError } from '../../errors.js';
import type { ImageConfig } from '../../image/image-config.js';
import { KnownManifests } from '../../image/known-manifests.js';
import { servableImage } from '../../image/servable-image.js';
import { LAYER_KINDS } from '../../layers/layer-kinds.js';
import { parseBlobUrl } from '../../oci/blob-url.js';
import { parsePlatform } from '../../oci/platform.js';
import { interruption } from '../interruption.js';
import { printJson } from './json-option.js';

const LOOK_MS = 200;
/** A registry that is away for less is waited for. */
const FAILING_MS_MAX = 60_000;

export interface PrefetchOptions {
  readonly wait: boolean;
  readonly blockd: string;
  readonly json: boolean;
  readonly platform: string | undefined;
  readonly 'plain-http': boolean;
  readonly 'hosts-dir': string;
}

/**
 * @throws {ObdError} `FailedPrecondition` for an image without remote blobs; `NoSpace` if the cache is too small;
 *   `Unavailable` if the registry has not given the bytes for a minute.
 */
export async function runPrefetch(image: string, options: PrefetchOptions): Promise<void> {
  const { wait, json, 'plain-http': plainHttp, 'hosts-dir': hostsDirectory } = options;
  const signal = interruption();
  const platform = options.platform === undefined ? undefined : parsePlatform(options.platform);
  const client = new BlockdClient(resolve(options.blockd));
  try {
    const known = new KnownManifests((await client.overview()).stateDir);
    const { config } = await servableImage(image, {
      kinds: LAYER_KINDS,
      platform,
      plainHttp,
      hostsDirectory,
      signal,
      known,
      // The blobs would be asked of the same registry.
      onUnavailable: (_, error) => {
        throw error;
      },
    });
    let progress = await client.prefetch(image, blobsOf(image, config));
    let cachedMax = -1;
    let failingSinceMs: number | undefined;
    while (wait && progress.state !== 'complete') {
      if (progress.state === 'full') throw full(image, progress);
      // Between two attempts it is filling, and a blob that fails its digest is dropped: only further bytes show that it works.
      if (progress.cachedBytes > cachedMax) failingSinceMs = undefined;
      cachedMax = Math.max(cachedMax, progress.cachedBytes);
      if (progress.state === 'failing') {
        if (failingSinceMs === undefined) {
          process.stderr.write(`obdctl: ${image}: ${progress.problem}; retrying\n`);
        }
        failingSinceMs ??= performance.now();
        if (performance.now() - failingSinceMs > FAILING_MS_MAX) throw failing(image, progress);
      }
      await sleep(LOOK_MS, undefined, { signal });
      progress = await progressOf(client, image);
    }
    if (json) printJson(progress);
    else process.stdout.write(`${lineOf(progress)}\n`);
  } finally {
    client.close();
  }
}

function blobsOf(image: string, { repoBlobUrl, lowers }: ImageConfig) {
  const blobs = lowers.flatMap(({ digest, size = 0, file, repoBlobUrl: own }) => {
    const repository = parseBlobUrl(own || repoBlobUrl);
    if (file || !digest || repository === undefined) return [];
    return [{ ...repository, digest, sizeBytes: size }];
  });
  if (blobs.length > 0) return blobs;
  const message = `Cannot prefetch ${image}: all its layers are files of this host`;
  throw new ObdError(ErrorCodes.FailedPrecondition, message);
}

async function progressOf(client: BlockdClient, image: string): Promise<Prefetch> {
  const found = (await client.overview()).prefetches.find(({ name }) => name === image);
  if (found !== undefined) return found;
  const message = `Cannot wait for the prefetch of ${image}: obd-blockd has restarted; run the command again`;
  throw new ObdError(ErrorCodes.Unavailable, message);
}

function failing(image: string, { problem }: Prefetch): ObdError {
  const message = `Cannot prefetch all of ${image}, tried for ${FAILING_MS_MAX / 1000} s: ${problem}; obd-blockd continues to try`;
  return new ObdError(ErrorCodes.Unavailable, message);
}

function full(image: string, { problem }: Prefetch): ObdError {
  return new ObdError(ErrorCodes.NoSpace, `Cannot prefetch all of ${image}: ${problem}`);
}

function lineOf({ name, state, cachedBytes, totalBytes }: Prefetch): string {
  return `${name}: ${state}, ${byteText(cachedBytes)} of ${byteText(totalBytes)}`;
}
