/**
 * A victim and its forgeries: images from obdconv, and hand-made manifests whose content would get the victim's chain ID
 * if the snapshotter did not compare.
 *
 *   victim     a shell, then /hello with "good"
 *   other      the same shell, then another /hello, as many bytes compressed: an honest image
 *   untreed    `victim` without the annotations that name its hash trees: an honest image, as old tools write it
 *   pause      `other`, with a long-running command: for pods
 *   config     the layers of `other`, under a config with the diff IDs of `victim`
 *   bottom     the evil layer alone, as the bottom layer of `victim`
 *   chain      the evil layer alone, under the chain ID of the whole of `victim`
 *   annotated  as `config`, with annotations that name the victim's blobs
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HASH_TREE_ANNOTATION } from '../../src/layers/overlaybd-annotations.js';
import { chainIdOn } from '../../src/oci/chain-id.js';
import {
  blobPath,
  type Descriptor,
  LayoutBuilder,
  readJson,
  sha256,
  taggedManifest,
} from './oci-layout-builder.js';
import { runObdconv } from './run-obdconv.js';
import { addProgram, goArchitecture, layerOf } from './runnable-image.js';

export const GOOD = 'this is good\n';
/** Candidates, tried in order until a blob has the size of the victim's. */
const EVIL = [
  'this is evil\n',
  'this is vile\n',
  'that was bad\n',
  'so it is evil\n',
  'evil\n',
  'x\n',
];
/** Order matters: a failed pull of a later one leaves the victim's own bottom layer, which `bottom` would then get. */
export const FORGERIES = ['bottom', 'chain', 'config', 'annotated'] as const;

interface Manifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

export class ForgedImages {
  /** Folder of an OCI layout with a tag for each. */
  readonly directory: string;
  /** Folder of an OCI layout with the unconverted `victim` and `other`. */
  readonly plain: string;
  /** Content of /hello in `other`. */
  evil = '';
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
    this.directory = join(folder, 'converted');
    this.plain = join(folder, 'plain');
  }

  static async make(): Promise<ForgedImages> {
    const folder = mkdtempSync('/var/tmp/obdf.');
    const images = new ForgedImages(folder);
    const plain = new LayoutBuilder(images.plain);
    const shell = layerOf(join(folder, 'shell'), (root) => {
      for (const program of ['/bin/sh', '/bin/cat', '/bin/sleep']) addProgram(root, program);
    });
    const sizes = new Map<string, number | undefined>();
    for (const [i, text] of [GOOD, ...EVIL].entries()) {
      const tag = i === 0 ? 'victim' : `other${i}`;
      const hello = layerOf(join(folder, tag), (root) => writeFileSync(join(root, 'hello'), text));
      plain.tag(tag, plain.addImage([shell, hello], goArchitecture()));
      const { status, stderr } = await runObdconv([
        `oci:${plain.directory}:${tag}`,
        `oci:${images.directory}:${tag}`,
      ]);
      assert.equal(status, 0, stderr);
      sizes.set(tag, images.manifest(tag).layers[1]?.size);
      if (i === 0 || sizes.get(tag) !== sizes.get('victim')) continue;
      images.evil = text;
      images.#addTag('other', taggedManifest(images.directory, tag));
      break;
    }
    assert.notEqual(images.evil, '', `no blob has the victim's size: ${[...sizes.values()]}`);
    for (const forgery of FORGERIES) images.#forge(forgery);
    const victim = images.manifest('victim').layers.map(withoutTree);
    const own = victim.map(({ digest }) => digest);
    images.#tag('untreed', victim, own);
    const { layers } = images.manifest('other');
    images.#tag(
      'pause',
      layers,
      layers.map(({ digest }) => digest),
      ['/bin/sleep', '1000'],
    );
    return images;
  }

  manifest(tag: string): Manifest {
    return readJson(blobPath(this.directory, taggedManifest(this.directory, tag).digest));
  }

  blob(digest: string): Buffer {
    return readFileSync(blobPath(this.directory, digest));
  }

  /** The victim, with annotations on its layers that call them an image at `reference`. */
  addLure(tag: string, reference: string): void {
    const { layers } = this.manifest('victim');
    const named = {
      'containerd.io/snapshot/cri.image-ref': reference,
      'containerd.io/snapshot/image-ref': reference,
    };
    this.#tag(
      tag,
      layers.map((layer) => ({ ...layer, annotations: { ...layer.annotations, ...named } })),
      layers.map(({ digest }) => digest),
    );
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true });
  }

  #forge(forgery: (typeof FORGERIES)[number]): void {
    const [victim, other] = [this.manifest('victim').layers, this.manifest('other').layers];
    const [evil] = other.slice(1);
    const own = victim.map(({ digest }) => digest);
    assert.ok(evil !== undefined && own[1] !== evil.digest);
    const annotations = (i: number) => victim[i]?.annotations ?? {};
    const forged = {
      config: { layers: other, diffIds: own },
      bottom: { layers: [evil], diffIds: own.slice(0, 1) },
      chain: { layers: [evil], diffIds: [own.reduce((below, each) => chainIdOn(below, each))] },
      annotated: {
        layers: other.map((layer, i) => ({ ...layer, annotations: annotations(i) })),
        diffIds: own,
      },
    }[forgery];
    this.#tag(forgery, forged.layers, forged.diffIds);
  }

  #tag(
    tag: string,
    layers: readonly Descriptor[],
    diffIds: readonly string[],
    command: readonly string[] = ['/bin/sh'],
  ): void {
    const original = this.manifest('other');
    const config = JSON.parse(this.blob(original.config.digest).toString()) as object;
    const history = diffIds.map(() => ({ created_by: 'forger' }));
    const rootfs = { type: 'layers', diff_ids: diffIds };
    const changed = { ...config, rootfs, history, config: { Cmd: command } };
    const configured = this.#add(original.config.mediaType, changed);
    const { mediaType } = taggedManifest(this.directory, 'other');
    this.#addTag(tag, this.#add(mediaType, { ...original, config: configured, layers }));
  }

  #addTag(tag: string, manifest: Descriptor): void {
    const index = join(this.directory, 'index.json');
    const { manifests, ...rest } = readJson<{ manifests: Descriptor[] }>(index);
    const annotations = { 'org.opencontainers.image.ref.name': tag };
    writeFileSync(
      index,
      JSON.stringify({ ...rest, manifests: [...manifests, { ...manifest, annotations }] }),
    );
  }

  #add(mediaType: string, value: object): Descriptor {
    const bytes = Buffer.from(JSON.stringify(value));
    const digest = sha256(bytes);
    writeFileSync(blobPath(this.directory, digest), bytes);
    return { mediaType, digest, size: bytes.length };
  }
}

function withoutTree({ annotations = {}, ...layer }: Descriptor): Descriptor {
  const { [HASH_TREE_ANNOTATION]: _, ...others } = annotations;
  return { ...layer, annotations: others };
}
