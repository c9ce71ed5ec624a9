/**
 * Goal: a reload of logins also invalidates a login in flight.
 * Method: logins that answer only when the test says so.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Authenticator } from './authenticator.js';
import { basicAuthorization, type Login } from './credentials.js';
import type { Endpoint } from './endpoint.js';
import { HttpClient } from './http-client.js';
import { RegistryHosts } from './registry-hosts.js';
import { DEFAULT_LIMITS } from './registry-limits.js';

test('forgetAll() invalidates a login in flight', async () => {
  const found: ((login: Login) => void)[] = [];
  const find = () => new Promise<Login>((resolve) => found.push(resolve));
  const login = (password: string): Login => ({ kind: 'password', username: 'u', password });
  const authenticator = new Authenticator(new HttpClient(DEFAULT_LIMITS), new RegistryHosts([]), {
    label: 'test',
    find,
  });
  const access = { host: 'r.test', repository: 'team/app', action: 'pull' } as const;
  const endpoint = { origin: 'https://r.test', loginHosts: ['r.test'] } as unknown as Endpoint;
  const answer = () =>
    authenticator.answer(access, endpoint, 'Basic realm="r"', undefined, undefined);
  const before = answer();
  authenticator.forgetAll();
  const after = answer();
  assert.equal(found.length, 2);
  found[0]?.(login('old'));
  await before;
  assert.equal(authenticator.known(access, endpoint), undefined);
  found[1]?.(login('new'));
  assert.equal(await after, basicAuthorization('u', 'new'));
  assert.equal(authenticator.known(access, endpoint), basicAuthorization('u', 'new'));
});
