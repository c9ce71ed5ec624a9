/** `obdctl record --list` and `--delete`: lists or deletes an image's published load orders. */
import { byteText } from '../../byte-text.js';
import { commandNamed } from '../../load-order/command-line.js';
import { pageCount } from '../../load-order/load-order.js';
import {
  COMMAND_ANNOTATION,
  HOT_PAGES_ANNOTATION,
  KIND_ANNOTATION,
  LOAD_ORDER_ANNOTATION,
  NAME_ANNOTATION,
  type NamedBlob,
  parseNamedBlob,
  parseStarts,
  STARTS_ANNOTATION,
} from '../../load-order/load-order-annotations.js';
import { LOAD_ORDER_ARTIFACT } from '../../load-order/order-artifact.js';
import { imageFor, imagesIn } from '../../oci/index-images.js';
import type { Descriptor } from '../../oci/manifest.js';
import { formatPlatform, parsePlatform } from '../../oci/platform.js';
import { type ImageReference, parseReference } from '../../oci/reference.js';
import type { ReferrerDescriptor } from '../../oci/referrer.js';
import { DockerCredentials } from '../../registry/docker-credentials.js';
import { deleteArtifact } from '../../registry/publish-artifact.js';
import { RegistryClient } from '../../registry/registry-client.js';
import { RegistryHosts } from '../../registry/registry-hosts.js';
import { RegistrySource } from '../../registry/registry-image.js';
import { interruption } from '../interruption.js';
import { printJson } from './json-option.js';
import { readLoadOrder } from './published-order.js';
import { textTable } from './text-table.js';

/** In the table: the algorithm and as much of the digest as tells commands apart. */
const COMMAND_CHARACTERS = 'sha256:'.length + 12;

/** A digest with its algorithm fits. */
const CELL_CHARACTERS_MAX = 80;

export interface LoadOrdersOptions {
  /** All platforms of an index if it is undefined. */
  readonly platform: string | undefined;
  /** Only those of that name; all if it is undefined. */
  readonly name: string | undefined;
  readonly plainHttp: boolean;
  /** containerd's hosts directory. */
  readonly hostsDirectory: string;
  readonly json: boolean;
}

interface PublishedOrder {
  readonly subject: Descriptor;
  readonly artifact: ReferrerDescriptor;
}

/** Prints a row for each. @throws {ObdError} errors of the registry. */
export async function listLoadOrders(image: string, options: LoadOrdersOptions): Promise<void> {
  await withOrders(image, options, async (orders, source) => {
    const described = [];
    for (const order of orders) described.push(await descriptionOf(order, source));
    if (options.json) return printJson(described);
    const columns = [
      { title: 'PLATFORM' },
      { title: 'NAME' },
      { title: 'COMMAND' },
      { title: 'KIND' },
      { title: 'STARTS', right: true },
      { title: 'PAGES', right: true },
      { title: 'DOCUMENT', right: true },
      { title: 'HOT BLOB', right: true },
      { title: 'ARTIFACT' },
    ];
    const rows = described.map((each) => [
      each.platform || '-',
      each.name || '-',
      each.command.slice(0, COMMAND_CHARACTERS) || '-',
      each.kind || '-',
      String(each.starts ?? '-'),
      String(each.pages ?? '-'),
      byteText(each.documentBytes),
      each.hotBytes === 0 ? '-' : byteText(each.hotBytes),
      each.artifact,
    ]);
    process.stdout.write(
      textTable(
        columns,
        rows.map((row) => row.map(printable)),
      ),
    );
  });
}

/** Deletes them. @throws {ObdError} `Unsupported` for a registry that deletes nothing; errors of the registry. */
export async function deleteLoadOrders(image: string, options: LoadOrdersOptions): Promise<void> {
  await withOrders(
    image,
    options,
    async (orders, _source, client, { host, repository }, signal) => {
      const deleted: string[] = [];
      for (const { subject, artifact } of orders) {
        await deleteArtifact(client, host, repository, subject, artifact.digest, signal);
        deleted.push(artifact.digest);
      }
      if (options.json) printJson(deleted);
      else process.stdout.write(`Deleted ${deleted.length} of the load orders of ${image}\n`);
    },
  );
}

async function withOrders(
  image: string,
  { platform, name, plainHttp, hostsDirectory }: LoadOrdersOptions,
  use: (
    orders: readonly PublishedOrder[],
    source: RegistrySource,
    client: RegistryClient,
    reference: ImageReference,
    signal: AbortSignal,
  ) => Promise<void>,
): Promise<void> {
  const signal = interruption();
  const reference = parseReference(image);
  const { host, repository } = reference;
  const hosts = new RegistryHosts(plainHttp ? [host] : [], {}, hostsDirectory);
  const client = new RegistryClient({ hosts, credentials: new DockerCredentials() });
  try {
    const source = new RegistrySource(client, reference, signal);
    const orders: PublishedOrder[] = [];
    for (const subject of await subjectsOf(source, platform)) {
      const found = await client.referrers(
        host,
        repository,
        subject.digest,
        LOAD_ORDER_ARTIFACT,
        AbortSignal.any([signal]),
      );
      const wanted = found.filter(
        ({ annotations }) => name === undefined || annotations[NAME_ANNOTATION] === name,
      );
      orders.push(...wanted.map((artifact) => ({ subject, artifact })));
    }
    await use(orders, source, client, reference, signal);
  } finally {
    await client.close();
  }
}

/** The manifests of the image: each platform's of an index, or one. */
async function subjectsOf(
  source: RegistrySource,
  platform: string | undefined,
): Promise<readonly Descriptor[]> {
  const top = await source.resolve();
  if (top.kind === 'image') return [top.descriptor];
  if (platform === undefined) return imagesIn(top.index);
  return [(await imageFor(source, top.index, parsePlatform(platform))).descriptor];
}

async function descriptionOf({ subject, artifact }: PublishedOrder, source: RegistrySource) {
  const { annotations, digest } = artifact;
  const document = parseNamedBlob(annotations[LOAD_ORDER_ANNOTATION] ?? '');
  const hot = parseNamedBlob(annotations[HOT_PAGES_ANNOTATION] ?? '');
  return {
    manifest: subject.digest,
    platform: subject.platform === undefined ? '' : formatPlatform(subject.platform),
    artifact: digest,
    name: annotations[NAME_ANNOTATION] ?? '',
    command: commandNamed(annotations[COMMAND_ANNOTATION]),
    kind: annotations[KIND_ANNOTATION] ?? '',
    starts: parseStarts(annotations[STARTS_ANNOTATION]),
    pages: document && (await pagesOf(document, source)),
    documentBytes: document?.sizeBytes ?? 0,
    hotBytes: hot?.sizeBytes ?? 0,
  };
}

/** Undefined for a document that no node could use. */
async function pagesOf(document: NamedBlob, source: RegistrySource): Promise<number | undefined> {
  try {
    return pageCount(await readLoadOrder(document, source));
  } catch {
    return undefined;
  }
}

/** Anybody who may push chooses names, and a terminal obeys control characters and those that turn the direction of text. */
function printable(text: string): string {
  const cut = text.length > CELL_CHARACTERS_MAX ? `${text.slice(0, CELL_CHARACTERS_MAX)}…` : text;
  return cut.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu, '?');
}
