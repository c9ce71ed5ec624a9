/** Runs obdconv for a parsed command line: opens both ends, converts, closes both ends. */
import { stat } from 'node:fs/promises';
import { convertImage } from '../../convert/convert-image.js';
import type { ConvertOptions } from '../../convert/convert-manifest.js';
import type { OutputFormat } from '../../convert/layer-converter.js';
import { readPriorityList } from '../../convert/priority-list.js';
import { RunDirectory, removeOrphans } from '../../convert/run-directory.js';
import { ErrorCodes, messageOf, ObdError } from '../../errors.js';
import { LAYER_FORMATS } from '../../layers/layer-formats.js';
import { parsePlatform } from '../../oci/platform.js';
import { DockerCredentials } from '../../registry/docker-credentials.js';
import { openImageDestination, openImageSource } from '../../registry/open-image-store.js';
import { RegistryClient } from '../../registry/registry-client.js';
import { RegistryHosts } from '../../registry/registry-hosts.js';
import { overwritesSource } from '../../registry/source-overwrite.js';
import { ProgressDisplay } from './obdconv-progress.js';

export interface ConversionRequest {
  readonly source: string;
  readonly destination: string;
  readonly workDirectory: string;
  /** Whether the destination may be the source. */
  readonly force: boolean;
  readonly allPlatforms: boolean;
  /** As typed: `linux/arm64`. */
  readonly platform: string | undefined;
  readonly plainHttpHosts: readonly string[];
  readonly format: OutputFormat;
  readonly predict: boolean;
  /** The path of a file; takes the place of the prediction. */
  readonly priorityList: string | undefined;
}

/**
 * @param stop - Ends the conversion, with its reason; a failure aborts it here as well.
 * @returns The digest of the written image.
 */
export async function runConversion(
  request: ConversionRequest,
  stop: AbortController,
): Promise<string> {
  const { allPlatforms, format } = request;
  const platform = request.platform === undefined ? undefined : parsePlatform(request.platform);
  await checkWorkDirectory(request.workDirectory);
  const order = await orderFor(request);
  const hosts = new RegistryHosts(request.plainHttpHosts);
  const client = new RegistryClient({ hosts, credentials: new DockerCredentials() });
  const progress = new ProgressDisplay(process.stderr);
  await removeOrphans(request.workDirectory, (session) => client.cancelUpload(session));
  const run = new RunDirectory(request.workDirectory);
  try {
    const open = { client, signal: stop.signal, noteUpload: run.noteUpload };
    const overwrite = { client, hosts, signal: stop.signal };
    const { source: from, destination: to, force } = request;
    if (!force && (await overwritesSource(from, to, overwrite))) throw overwriteError(from, to);
    const source = openImageSource(request.source, open);
    const destination = openImageDestination(request.destination, open);
    try {
      await destination.check();
      const selection = { allPlatforms, platform };
      const formats = LAYER_FORMATS;
      const options = { format, formats, workDirectory: run.path, order, progress, stop };
      const { digest } = await convertImage(source, destination, selection, options);
      progress.finished(destination.label);
      return digest;
    } finally {
      await destination.close();
      await source.close();
    }
  } finally {
    progress.stop();
    run.remove();
    await client.close();
  }
}

async function orderFor({
  predict,
  priorityList,
}: ConversionRequest): Promise<ConvertOptions['order']> {
  if (priorityList !== undefined) return { files: await readPriorityList(priorityList) };
  return predict ? 'predicted' : 'none';
}

function overwriteError(source: string, destination: string): ObdError {
  return new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot convert ${source} to ${destination}: that is the image itself, which runs elsewhere, too, and would lose its name; choose another name, or overwrite it with --force`,
    { reference: source },
  );
}

/** Runs before any registry request, because this option is often mistyped. */
async function checkWorkDirectory(path: string): Promise<void> {
  const problem = await stat(path).then(
    (found) => (found.isDirectory() ? undefined : 'it is no directory'),
    messageOf,
  );
  if (problem === undefined) return;
  const message = `Cannot use "${path}" as work directory: ${problem}; name another with --work-dir`;
  throw new ObdError(ErrorCodes.InvalidArgument, message, { path });
}
