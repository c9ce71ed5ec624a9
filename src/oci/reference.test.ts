/**
 * Goal: parseReference() agrees with docker and containerd on every reference, and refuses other text with a hint.
 * Method: references by example, and arbitrary text.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ErrorCodes, ObdError } from '../errors.js';
import { isHost, isRepository, isTag, parseReference } from './reference.js';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

test('completes short names as docker does', () => {
  for (const [text, full] of [
    ['debian', 'docker.io/library/debian:latest'],
    ['debian:12', 'docker.io/library/debian:12'],
    ['user/app', 'docker.io/user/app:latest'],
    ['docker.io/debian', 'docker.io/library/debian:latest'],
    ['index.docker.io/user/app:1', 'docker.io/user/app:1'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app', 'localhost:5000/app:latest'],
    ['localhost:5000/a/b/c:x', 'localhost:5000/a/b/c:x'],
    ['ghcr.io/x/y', 'ghcr.io/x/y:latest'],
    ['REGISTRY/x', 'REGISTRY/x:latest'],
    ['[::1]:5000/x:1', '[::1]:5000/x:1'],
    [`debian@${DIGEST}`, `docker.io/library/debian@${DIGEST}`],
    [`debian:12@${DIGEST}`, `docker.io/library/debian:12@${DIGEST}`],
    ['a/b__c/d-e.f--g', 'docker.io/a/b__c/d-e.f--g:latest'],
  ] as const) {
    assert.equal(parseReference(text).toString(), full, text);
    assert.equal(parseReference(full).toString(), full);
  }
});

test('a digest is requested even if the reference has a tag, too', () => {
  assert.equal(parseReference('debian').target, 'latest');
  assert.equal(parseReference('debian:12').target, '12');
  assert.equal(parseReference(`debian:12@${DIGEST}`).target, DIGEST);
});

test('refuses an invalid reference and suggests a valid form', () => {
  for (const [text, hint] of [
    ['', /empty/],
    ['https://ghcr.io/x', /leave out "https:/],
    ['docker://ghcr.io/x', /leave out "docker:/],
    ['Debian', /lower case/],
    ['ghcr.io/X/y', /lower case/],
    ['ghcr.io/', /no repository/],
    ['a//b', /joined by/],
    ['a/../b', /joined by/],
    ['x:', /is no tag/],
    ['x:-a', /is no tag/],
    [`x:${'a'.repeat(129)}`, /is no tag/],
    ['x@md5:00', /after "@"/],
    [`x@${DIGEST}0`, /after "@"/],
    ['ho st.example/x', /no host/],
    ['host.example:99999/x', /no host/],
    [DIGEST.slice(7), /image ID/],
    [`x/${'a'.repeat(255)}`, /255/],
    ['x'.repeat(3000), /3000 characters/],
  ] as const) {
    assert.throws(() => parseReference(text), { code: ErrorCodes.InvalidArgument, message: hint });
  }
  assert.throws(() => parseReference(`x@sha512:${'0'.repeat(128)}`), {
    code: ErrorCodes.Unsupported,
  });
});

test('any accepted text can be written back unchanged in meaning', () => {
  const texts = fc.oneof(
    fc.string({ maxLength: 60 }),
    fc.stringMatching(/^[a-zA-Z0-9.:/@_-]{0,60}$/),
  );
  fc.assert(
    fc.property(texts, (text) => {
      try {
        const reference = parseReference(text);
        assert.deepEqual(parseReference(reference.toString()), reference);
        assert.ok(isHost(reference.host) && isRepository(reference.repository));
        assert.ok(reference.tag === undefined || isTag(reference.tag));
      } catch (error) {
        assert.ok(error instanceof ObdError);
      }
    }),
  );
});
