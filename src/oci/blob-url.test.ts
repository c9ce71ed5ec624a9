/**
 * Goal: the one form of URL is read, and everything else is none.
 * Method: by hand.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseBlobUrl } from './blob-url.js';

test('host, port and repository', () => {
  for (const [url, host, repository] of [
    ['https://ghcr.io/v2/a/b/blobs', 'ghcr.io', 'a/b'],
    ['http://localhost:5000/v2/app/blobs', 'localhost:5000', 'app'],
    ['https://[::1]:5000/v2/app/blobs/', '[::1]:5000', 'app'],
    ['https://registry-1.docker.io/v2/library/ubuntu/blobs', 'docker.io', 'library/ubuntu'],
    ['https://h/v2/blobs/blobs', 'h', 'blobs'],
  ] as const) {
    assert.deepEqual(parseBlobUrl(url), { host, repository }, url);
  }
});

test('any other text is no blob URL', () => {
  for (const url of [
    '',
    'ghcr.io/v2/a/blobs',
    'ftp://h/v2/a/blobs',
    'https://h/v2/blobs',
    'https://h/v2//blobs',
    'https://h/v2/../a/blobs',
    'https://h/v2/A/blobs',
    'https://user:password@h/v2/a/blobs',
    'https://h:99999/v2/a/blobs',
    'https://h/v2/a/blobs?x=y',
    'https://h/v2/a/blobs#x',
    'https://h/v2/a/manifests',
    'https://h/v2/a/blobs/sha256:0',
    'https://h/v2/a/blobs\n',
  ]) {
    assert.equal(parseBlobUrl(url), undefined, url);
  }
});
