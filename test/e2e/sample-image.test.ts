/**
 * Goal: a real Debian image keeps all its properties in conversion: after every layer e2fsck finds the disk clean, and
 * the kernel's mount of the exported disk equals the layers applied by umoci in every path, type, mode, owner, size,
 * content, link count, xattr, device number and mtime.
 * Method: the image of scripts/sample-image.sh, converted from its layout into another; each prefix of its layers is
 * written out as a raw disk with obdctl, as a user would.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  blobPath,
  type Descriptor,
  type LayerSource,
  LayoutBuilder,
  readJson,
  taggedManifest,
} from '../support/oci-layout-builder.js';
import { runObdconv } from '../support/run-obdconv.js';
import { obdctl } from '../support/run-obdctl.js';
import { compareTrees, countPaths } from '../support/tree-compare.js';

const LAYERS = 3;
/** A minimal Debian alone has more. */
const PATHS_MIN = 5000;
/** Limits the output of e2fsck about a disk that is all wrong. */
const SHOWN_MAX = 4000;
const skip = process.geteuid?.() === 0 ? false : 'mounting and unpacking with owners needs root';

describe('the sample image, converted', { skip, timeout: 300_000 }, () => {
  let root: string;
  let source: string;
  let blobs: string[];
  let prefixes: LayoutBuilder;

  before(async () => {
    // Not in /tmp, which may be small: exported disks are sparse, and umoci's trees are not.
    root = mkdtempSync('/var/tmp/obd-sample-');
    const script = join(repositoryRoot(), 'scripts', 'sample-image.sh');
    source = execFileSync(script, ['--cached'], { encoding: 'utf8' }).trim();
    prefixes = new LayoutBuilder(join(root, 'prefixes'));
    const target = join(root, 'converted');
    const { status, stderr } = await runObdconv([`oci:${source}:sample`, `oci:${target}:obd`]);
    assert.equal(status, 0, stderr);
    const manifest = readJson<{ layers: Descriptor[] }>(
      blobPath(target, taggedManifest(target, 'obd').digest),
    );
    blobs = manifest.layers.map(({ digest }) => blobPath(target, digest));
    assert.equal(blobs.length, LAYERS);
  });
  after(() => {
    rmSync(root, { recursive: true, force: true });
  });

  for (let layers = 1; layers <= LAYERS; layers++) {
    test(`equals what umoci unpacks, after ${layers} of ${LAYERS} layers`, async () => {
      const disk = join(root, `${layers}.raw`);
      const exported = await obdctl('layer', 'export', disk, ...blobs.slice(0, layers));
      assert.equal(exported.status, 0, exported.stderr);
      const checked = spawnSync('e2fsck', ['-fn', disk], { encoding: 'utf8' });
      assert.equal(checked.status, 0, checked.stdout.slice(0, SHOWN_MAX));

      const bundle = join(root, `bundle-${layers}`);
      prefixes.tag(`${layers}`, prefixes.addImage(layersOf(source).slice(0, layers)));
      const image = `${prefixes.directory}:${layers}`;
      execFileSync('umoci', ['unpack', '--image', image, bundle], { stdio: 'pipe' });
      const mountPoint = join(root, 'mnt');
      mkdirSync(mountPoint, { recursive: true });
      execFileSync('mount', ['-o', 'loop,ro', disk, mountPoint]);
      try {
        assert.ok(countPaths(mountPoint) > PATHS_MIN);
        const ours = { ignore: ['lost+found'] };
        assert.deepEqual(compareTrees(join(bundle, 'rootfs'), mountPoint, ours), []);
      } finally {
        execFileSync('umount', [mountPoint]);
      }
      rmSync(disk);
      rmSync(bundle, { recursive: true });
    });
  }
});

/** The layers of the image in a layout, as they are stored. */
function layersOf(layout: string): LayerSource[] {
  const { layers, config } = readJson<{ layers: Descriptor[]; config: Descriptor }>(
    blobPath(layout, taggedManifest(layout, 'sample').digest),
  );
  const { rootfs } = readJson<{ rootfs: { diff_ids: string[] } }>(blobPath(layout, config.digest));
  return layers.map(({ mediaType, digest }, i) => ({
    mediaType,
    blob: readFileSync(blobPath(layout, digest)),
    diffId: rootfs.diff_ids[i] as string,
  }));
}

function repositoryRoot(): string {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  return root;
}
