/**
 * Goal: clients get the very mounts that containerd's overlayfs snapshotter would answer.
 * Method: each combination of kind and number of layers below, against what containerd 1.6 and 2.x send.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hostOverlayOptions, mountsOf } from './overlay-mounts.js';
import type { Kind } from './snapshot.js';

const of = (kind: Kind, ...lowers: string[]) =>
  mountsOf(kind, { files: '/9/fs', work: '/9/work', lowers }, ['index=off']);

describe('mounts', () => {
  test('a snapshot without a parent is a bind of its files', () => {
    const options = (access: string) => [
      { type: 'bind', source: '/9/fs', options: [access, 'rbind'] },
    ];
    assert.deepEqual(of('active'), options('rw'));
    assert.deepEqual(of('view'), options('ro'));
  });

  test('a view of one layer is a bind of that layer', () => {
    assert.deepEqual(of('view', '/1/fs'), [
      { type: 'bind', source: '/1/fs', options: ['ro', 'rbind'] },
    ]);
  });

  test('any other snapshot is an overlay, nearest layer first, writable only if active', () => {
    const overlay = (...options: string[]) => [
      { type: 'overlay', source: 'overlay', options: ['index=off', ...options] },
    ];
    assert.deepEqual(
      of('active', '/1/fs'),
      overlay('workdir=/9/work', 'upperdir=/9/fs', 'lowerdir=/1/fs'),
    );
    assert.deepEqual(of('view', '/2/fs', '/1/fs'), overlay('lowerdir=/2/fs:/1/fs'));
  });

  test('hostOverlayOptions() returns options that mount(8) accepts', () => {
    for (const option of hostOverlayOptions()) assert.match(option, /^(index=off|userxattr)$/);
  });
});
