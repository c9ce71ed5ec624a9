/**
 * Gets a token for a registry from the server that its `Bearer` challenge names (distribution's "token
 * authentication"): a GET, with the login if there is one, or the OAuth 2 form with an identity token.
 *
 * The challenge comes from the registry, so its realm is checked before a login goes there. The realm must use TLS.
 * Plain HTTP is allowed if the realm is listed, is a plain HTTP registry itself, or is on this machine with it.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { basicAuthorization, type Login } from './credentials.js';
import type { HttpClient } from './http-client.js';
import { quotable } from './quotable.js';
import { isLoopback, type RegistryHosts, registryAddress } from './registry-hosts.js';
import { responseError } from './response-error.js';

/** Most tokens have 1 to 4 KiB; Azure's reach 10 KiB. */
const ANSWER_BYTES_MAX = 256 << 10;
/** For the whole answer. Many callers may wait for the token, and none of them can abort the request. */
const ANSWER_MS_MAX = 30_000;
/** The specification's default for a token without `expires_in`. */
const LIFE_SECONDS_DEFAULT = 60;
/** Longer lifetimes are capped: a token that expires early costs only one request, which gets a 401. */
const LIFE_SECONDS_MAX = 3600;

export interface TokenRequest {
  readonly parameters: ReadonlyMap<string, string>;
  readonly scope: string;
  readonly login: Login | undefined;
  /** The registry's name, as in a reference. */
  readonly host: string;
  /** Origin of the address that sent the challenge. */
  readonly origin: string;
  /** For messages: "Cannot log in to host". */
  readonly doing: string;
}

export interface Token {
  readonly authorization: string;
  readonly lifeMs: number;
}

/** @throws {ObdError} `Unauthorized` if the login is refused, `Unavailable`, `Registry`. */
export async function requestToken(
  http: HttpClient,
  hosts: RegistryHosts,
  request: TokenRequest,
): Promise<Token> {
  const { parameters, scope, login, host, origin, doing } = request;
  const realm = realmOf(parameters.get('realm'), origin, hosts, doing);
  const service = parameters.get('service');
  const fields = new URLSearchParams(service === undefined ? {} : { service });
  fields.set('scope', scope);
  const signal = AbortSignal.timeout(ANSWER_MS_MAX);
  const common = { signal, tls: hosts.tlsFor(host, realm), doing } as const;
  const form = { 'content-type': 'application/x-www-form-urlencoded' };
  let response: Awaited<ReturnType<HttpClient['send']>>;
  if (login?.kind === 'identity-token') {
    fields.set('grant_type', 'refresh_token');
    fields.set('client_id', 'obd-ts');
    fields.set('refresh_token', login.token);
    const body = Buffer.from(fields.toString());
    response = await http.send({ ...common, method: 'POST', url: realm, headers: form, body });
  } else {
    for (const [name, value] of fields) realm.searchParams.append(name, value);
    const headers =
      login === undefined
        ? {}
        : { authorization: basicAuthorization(login.username, login.password) };
    response = await http.send({ ...common, method: 'GET', url: realm, headers });
  }
  if (response.status !== 200) throw await responseError(response);
  return tokenOf(await response.readAll(ANSWER_BYTES_MAX), doing, realm.host);
}

function realmOf(
  text: string | undefined,
  origin: string,
  hosts: RegistryHosts,
  doing: string,
): URL {
  const refuse = (problem: string) => new ObdError(ErrorCodes.Registry, `${doing}: ${problem}`);
  if (text === undefined) throw refuse('its challenge names no token server');
  if (!URL.canParse(text)) throw refuse('the token server it names is not a URL');
  const realm = new URL(text);
  if (realm.protocol === 'https:') return realm;
  const registry = new URL(origin);
  const bothHere = isLoopback(registry.hostname) && isLoopback(realm.hostname);
  // The registry's own origin has plain HTTP only if the operator allowed it.
  const plainHere = registry.protocol === 'http:' && (bothHere || realm.origin === registry.origin);
  if (realm.protocol === 'http:' && (plainHere || hosts.isListedPlain(registryAddress(realm.href))))
    return realm;
  throw refuse(
    `its token server ${quotable(realm.protocol)}//${quotable(realm.host)} is not reached by TLS, and no login is sent there; to trust it, list it in plain_http`,
  );
}

function tokenOf(bytes: Uint8Array, doing: string, host: string): Token {
  const bad = (problem: string) =>
    new ObdError(ErrorCodes.Registry, `${doing}: the answer of token server ${host} ${problem}`);
  let json: Readonly<Record<string, unknown>>;
  try {
    json = Object(JSON.parse(Buffer.from(bytes).toString('utf8')));
  } catch {
    throw bad('is not JSON');
  }
  const token = json['token'] ?? json['access_token'];
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) throw bad('holds no token');
  const said = json['expires_in'];
  const seconds = typeof said === 'number' && said > 0 ? said : LIFE_SECONDS_DEFAULT;
  return {
    authorization: `Bearer ${token}`,
    lifeMs: Math.min(seconds, LIFE_SECONDS_MAX) * 1000,
  };
}
