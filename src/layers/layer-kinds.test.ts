/**
 * Goal: the kinds of layer are told apart as overlaybd's tools describe them, without native code.
 * Method: descriptions and first bytes of each kind, sound and contradictory; the table loaded in a process that cannot
 * load an add-on.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { ZFILE_MAGIC } from '../zfile/zfile-magic.js';
import { describeLayer, isMarked } from './layer-kind.js';
import { LAYER_KINDS } from './layer-kinds.js';

const PREFIX = 'containerd.io/snapshot/overlaybd/';
const DIGEST = `sha256:${'a'.repeat(64)}`;
const LSMT_MAGIC = Buffer.from('4c534d5400010200657e63d29444084ca2d2c8ec4fcfae8a', 'hex');

const annotated = (extra: Record<string, string> = {}) => ({
  annotations: { [`${PREFIX}blob-digest`]: DIGEST, [`${PREFIX}blob-size`]: '7', ...extra },
});

describe('LAYER_KINDS', () => {
  test('describes a layer by its annotations', () => {
    const lower = { digest: DIGEST, size: 7 };
    const plain = { holds: 'blocks', lower, fileSystem: 'ext4' };
    assert.deepEqual(describeLayer(LAYER_KINDS, annotated()), plain);
    const xfs = annotated({ [`${PREFIX}blob-fs-type`]: 'xfs;-o x;y' });
    assert.deepEqual(describeLayer(LAYER_KINDS, xfs), { ...plain, fileSystem: 'xfs' });
    const trace = annotated({ [`${PREFIX}acceleration-layer`]: 'yes' });
    const ofTurbo = annotated({ ...trace.annotations, [`${PREFIX}version`]: '0.1.0-turbo.ociv1' });
    for (const description of [trace, ofTurbo]) {
      assert.deepEqual(describeLayer(LAYER_KINDS, description), {
        ...{ holds: 'trace', lower: { ...lower, kind: 'overlaybd-trace' }, fileSystem: 'ext4' },
      });
    }
  });

  test('takes the size of a descriptor that has no annotation of it', () => {
    const annotations = { [`${PREFIX}blob-digest`]: DIGEST };
    const described = describeLayer(LAYER_KINDS, { digest: DIGEST, size: 9, annotations });
    assert.equal(described?.lower.size, 9);
  });

  test('knows no layer without its annotation, or with that of another blob', () => {
    const other = { ...annotated(), digest: `sha256:${'b'.repeat(64)}`, size: 7 };
    for (const description of [{}, { annotations: {} }, other]) {
      assert.equal(describeLayer(LAYER_KINDS, description), undefined);
    }
  });

  test('marks a layer with any annotation of a kind, complete or not', () => {
    const version = { annotations: { [`${PREFIX}version`]: '0.1.0' } };
    for (const description of [annotated(), version]) assert.ok(isMarked(LAYER_KINDS, description));
    const foreign = { annotations: { 'containerd.io/snapshot/remote/x': '1' } };
    for (const description of [{}, foreign]) assert.ok(!isMarked(LAYER_KINDS, description));
  });

  test('refuses annotations that contradict their definition, naming them', () => {
    for (const [extra, code] of [
      [{ 'blob-digest': 'sha256:../../etc' }, ErrorCodes.InvalidArgument],
      [{ 'blob-size': '0' }, ErrorCodes.InvalidArgument],
      [{ 'blob-size': '1e3' }, ErrorCodes.InvalidArgument],
      [{ version: '0.2.0' }, ErrorCodes.InvalidArgument],
      [{ version: '0.1.0-turbo.ociv1' }, ErrorCodes.Unsupported],
      [{ version: '0.1.0-fastoci' }, ErrorCodes.Unsupported],
      [{ 'turbo-oci/target-digest': DIGEST }, ErrorCodes.Unsupported],
      [{ 'fastoci/target-digest': DIGEST }, ErrorCodes.Unsupported],
    ] as const) {
      const [[name, value]] = Object.entries(extra) as [[string, string]];
      const description = annotated({ [PREFIX + name]: value });
      assert.throws(() => describeLayer(LAYER_KINDS, description), {
        code,
        message: new RegExp(`^Cannot use the overlaybd layer .*overlaybd/${name}=`),
      });
    }
  });

  test('describes the hash tree of a layer, and refuses one that is no use', () => {
    const key = 'containerd.io/snapshot/obd-ts.hash-tree';
    const described = (text: string) =>
      describeLayer(LAYER_KINDS, { annotations: { ...annotated().annotations, [key]: text } });
    assert.deepEqual(described(`${DIGEST}@6`)?.lower.hashTree, { root: DIGEST, offset: 6 });
    for (const text of ['', DIGEST, `${DIGEST}@`, `${DIGEST}@0`, `${DIGEST}@7`, 'sha256:a@6']) {
      assert.throws(() => described(text), {
        code: ErrorCodes.InvalidArgument,
        message: /obd-ts\.hash-tree=/,
      });
    }
  });

  test('recognises a blob by its first bytes, in either tar or without one', () => {
    const trace = Buffer.from('2018efc2', 'hex');
    const recognized = (head: Uint8Array, lower = {}) =>
      LAYER_KINDS.filter((kind) => kind.recognizes(head, lower)).map(({ name }) => name);
    for (const at of [0, 512, 1536]) {
      const head = (magic: Uint8Array) => Buffer.concat([Buffer.alloc(at), magic, Buffer.alloc(9)]);
      for (const magic of [ZFILE_MAGIC, LSMT_MAGIC]) {
        assert.deepEqual(recognized(head(magic)), ['overlaybd']);
        const turbo = recognized(head(magic), { targetFile: '/tar' });
        assert.deepEqual(turbo, ['overlaybd-turbo', 'overlaybd']);
      }
      assert.deepEqual(recognized(head(trace)), ['overlaybd-trace']);
    }
    for (const head of [Buffer.alloc(0), Buffer.alloc(2048), trace.subarray(1)]) {
      assert.deepEqual(recognized(head), []);
    }
  });

  test('is loaded without an add-on, unlike the formats', () => {
    const load = (module: string) => {
      const url = new URL(module, import.meta.url).href;
      const script = `import assert from 'node:assert';process.dlopen = () => assert.fail('add-on'); await import('${url}');`;
      const args = ['--input-type=module', '--eval', script];
      return spawnSync(process.execPath, args, { encoding: 'utf8' });
    };
    for (const module of ['./layer-kinds.js', './lower-layer.js']) {
      const { status, stderr } = load(module);
      assert.deepEqual([status, stderr], [0, '']);
    }
    const { status, stderr } = load('./layer-formats.js');
    assert.notEqual(status, 0);
    assert.match(stderr, /add-on/);
  });
});
