/**
 * Goal: a start that could not be merged into the published load order is refused before it runs.
 * Method: lists of artifacts, and a source that has their documents.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { orderOfPages } from '../../../test/support/load-orders.js';
import { ErrorCodes, ObdError } from '../../errors.js';
import { encodeLoadOrder } from '../../load-order/load-order.js';
import { LOAD_ORDER_ANNOTATION, NAME_ANNOTATION } from '../../load-order/load-order-annotations.js';
import { LOAD_ORDER_ARTIFACT } from '../../load-order/order-artifact.js';
import { NO_WISH } from '../../load-order/select-order.js';
import { sha256Of } from '../../oci/digest.js';
import type { ImageSource } from '../../oci/image-store.js';
import { OCI_MANIFEST } from '../../oci/media-types.js';
import { checkMergeable } from './published-order.js';

const CURRENT = encodeLoadOrder(orderOfPages([1, 2]));
const LATER = Buffer.from('{"version":2}');

/** @param document - Undefined for one that the registry has lost. */
async function check(document: Buffer | undefined, name = '', size = 0): Promise<void> {
  const bytes = document ?? LATER;
  const digest = sha256Of(bytes);
  const source: Pick<ImageSource, 'label' | 'readBlob'> = {
    label: 'docker://registry.example/app:1',
    readBlob: async function* (wanted) {
      assert.equal(wanted.digest, digest);
      if (document === undefined) throw new ObdError(ErrorCodes.NotFound, 'gone');
      yield document;
    },
  };
  const annotations = {
    [LOAD_ORDER_ANNOTATION]: `${digest}@${size || bytes.length}`,
    [NAME_ANNOTATION]: name,
  };
  const artifact = { mediaType: OCI_MANIFEST, digest: sha256Of(Buffer.from('a')), size: 1 };
  const listed = { ...artifact, artifactType: LOAD_ORDER_ARTIFACT, annotations };
  await checkMergeable([listed], NO_WISH, source as ImageSource);
}

describe('checkMergeable()', () => {
  test('refuses a document of a later version, with the remedy', async () => {
    await assert.rejects(check(LATER), {
      code: ErrorCodes.Unsupported,
      message:
        /^Cannot record a start of docker:.*: Cannot use load order sha256:\w+: it is of version 2, .*; update obd-ts, or use --no-publish/,
    });
  });

  test('takes a document of this version, and one that will be replaced', async () => {
    await check(CURRENT);
    await check(Buffer.from('{}'));
    await check(undefined);
    await check(LATER, '', 1 << 30);
  });

  test('ignores the order of another start', async () => {
    await check(LATER, 'nightly');
  });
});
