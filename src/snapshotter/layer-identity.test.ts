/**
 * Goal: no config, manifest or annotation gets a layer served under a chain ID that is not its own; every honest image
 * is served.
 * Method: random chains of layers, honest and forged in every field that an image controls; the labels that containerd
 * 2.4 adds; keys that unpack and keys that do not.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { chainIdOn } from '../oci/chain-id.js';
import { DIFF_ID_LABEL, PARENT_CHAIN_LABEL, REF_LABEL } from './labels.js';
import { chainIdToUnpack, expectsRebase, identityProblem } from './layer-identity.js';
import type { Snapshot } from './snapshot.js';

const digest = fc
  .array(fc.constantFrom(...'0123456789abcdef'), { minLength: 64, maxLength: 64 })
  .map((digits) => `sha256:${digits.join('')}`);

function layerWith(chainId: string | undefined): Snapshot {
  return {
    id: 1,
    name: 'below',
    parent: '',
    kind: 'committed',
    labels: {},
    createdAtMs: 0,
    updatedAtMs: 0,
    usage: { sizeBytes: 0, inodes: 0 },
    layer: { type: 'blocks', lower: {}, fileSystem: 'ext4', file: 'overlaybd.commit' },
    chainId,
    namespaces: [],
  };
}

/** The parent of the layer at `index`, with its chain ID. */
function below(digests: readonly string[], index: number): Snapshot | undefined {
  return index === 0
    ? undefined
    : layerWith(digests.slice(0, index).reduce((chain, each) => chainIdOn(chain, each), ''));
}

const chainOf = (digests: readonly string[]) =>
  digests.reduce((chain, each) => chainIdOn(chain, each), '');

test('every layer of an honest image is proved, with and without the labels of containerd 2.4', () => {
  const images = fc.array(digest, { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(images, fc.boolean(), (digests, says) => {
      digests.forEach((own, i) => {
        const ref = chainOf(digests.slice(0, i + 1));
        const parent = i === 0 ? {} : { [PARENT_CHAIN_LABEL]: chainOf(digests.slice(0, i)) };
        const labels = says ? { [DIFF_ID_LABEL]: own, ...parent } : {};
        const claim = { ref, digest: own, labels, below: below(digests, i) };
        assert.equal(identityProblem(claim), undefined);
        assert.equal(expectsRebase(ref, i === 0 ? '' : 'below', labels), false);
      });
    }),
  );
});

test('a layer under the chain ID of another image, or on another parent, is not proved', () => {
  const images = fc.array(digest, { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(images, images, digest, fc.nat(5), (victim, forger, evil, at) => {
      const index = Math.min(at, victim.length - 1);
      const ref = chainOf(victim.slice(0, index + 1));
      const own = victim[index] ?? '';
      const honest = below(victim, index);
      const elsewhere = below([...forger, own], forger.length);
      fc.pre(evil !== own && elsewhere?.chainId !== honest?.chainId);
      for (const claim of [
        { digest: evil, below: honest },
        { digest: evil, below: elsewhere },
        { digest: own, below: elsewhere },
        { digest: own, below: layerWith(undefined) },
        { digest: ref, below: elsewhere },
      ]) {
        assert.notEqual(identityProblem({ ref, labels: {}, ...claim }), undefined);
      }
      if (index > 0) {
        const alone = { ref, labels: {}, digest: own, below: undefined };
        assert.notEqual(identityProblem(alone), undefined);
      }
    }),
  );
});

test('labels of containerd that disagree are a problem, and so are labels of the parent that agree', () => {
  fc.assert(
    fc.property(digest, digest, digest, (first, second, other) => {
      fc.pre(other !== first && other !== second);
      const ref = chainIdOn(first, second);
      const claim = { ref, digest: second, below: layerWith(first) };
      assert.equal(identityProblem({ ...claim, labels: {} }), undefined);
      for (const labels of [{ [DIFF_ID_LABEL]: other }, { [PARENT_CHAIN_LABEL]: other }]) {
        assert.match(identityProblem({ ...claim, labels }) ?? '', /containerd says/);
      }
      const labels = { [REF_LABEL]: first };
      const named = { ...layerWith(undefined), name: first, labels };
      assert.notEqual(identityProblem({ ...claim, labels, below: named }), undefined);
    }),
  );
});

test('a layer that is prepared without its parent is told from a bottom layer', () => {
  fc.assert(
    fc.property(digest, digest, digest, (parentChain, diffId, other) => {
      const labels = { [DIFF_ID_LABEL]: diffId, [PARENT_CHAIN_LABEL]: parentChain };
      const ref = chainIdOn(parentChain, diffId);
      assert.equal(expectsRebase(ref, '', labels), true);
      assert.equal(expectsRebase(ref, parentChain, labels), false);
      assert.equal(expectsRebase(other, '', labels), false);
      assert.equal(expectsRebase(diffId, '', { [DIFF_ID_LABEL]: diffId }), false);
    }),
  );
});

test('an unpacked layer has the chain ID of its key, if its parent is proved and no label contradicts', () => {
  const chainId = `sha256:${'1'.repeat(64)}`;
  const other = `sha256:${'2'.repeat(64)}`;
  const parent = layerWith(other);
  for (const [key, labels, on, expected] of [
    [`ns/1/extract-12-ab ${chainId}`, {}, undefined, chainId],
    [`extract-12-ab ${chainId}`, { [REF_LABEL]: chainId }, parent, chainId],
    [`extract-12-ab ${chainId}`, { [REF_LABEL]: other }, parent, undefined],
    [`extract-12-ab ${chainId}`, {}, layerWith(undefined), undefined],
    ['ns/1/container', { [REF_LABEL]: chainId }, parent, undefined],
    [chainId, { [REF_LABEL]: chainId }, undefined, undefined],
  ] as const) {
    assert.equal(chainIdToUnpack(key, labels, on), expected, key);
  }
});
