/**
 * The Authorization headers of one client, learnt from challenges and kept while they are good, for each address of a
 * registry, repository and kind of access. A mirror gets its own login, never that of the registry it mirrors.
 *
 * Nothing is sent before a registry asks. If several requests are challenged at once, one of them gets
 * the token for all. A token that is refused before it expires is replaced like a missing one.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { Access } from './access.js';
import { requestToken } from './bearer-token.js';
import { type Challenge, parseChallenges } from './challenge.js';
import { basicAuthorization, type Credentials, type Login } from './credentials.js';
import type { Endpoint } from './endpoint.js';
import type { HttpClient } from './http-client.js';
import type { RegistryHosts } from './registry-hosts.js';

/** A token is not used in its last seconds, so that it does not expire on the way. */
const EXPIRY_MARGIN_MS = 5_000;
/** More than the repositories in use at once; logins beyond this are requested again. */
const AUTHORIZATIONS_MAX = 1024;

interface Known {
  readonly authorization: string;
  /** On the clock of performance.now(). */
  readonly goodUntilMs: number;
}

export class Authenticator {
  readonly #http: HttpClient;
  readonly #hosts: RegistryHosts;
  readonly #credentials: Credentials;
  readonly #known = new Map<string, Known>();
  readonly #underWay = new Map<string, Promise<string>>();
  /** Counts forgetAll() calls: a login in flight during such a call is not kept. */
  #generation = 0;

  constructor(http: HttpClient, hosts: RegistryHosts, credentials: Credentials) {
    this.#http = http;
    this.#hosts = hosts;
    this.#credentials = credentials;
  }

  /** Invalidates every login, those in flight too: the next request looks its login up again. */
  forgetAll(): void {
    this.#generation++;
    this.#known.clear();
    this.#underWay.clear();
  }

  /** Returns the header to send; undefined until a registry asked for one. */
  known(access: Access, endpoint: Endpoint): string | undefined {
    const key = keyOf(access, endpoint);
    const known = this.#known.get(key);
    if (known === undefined) return undefined;
    this.#known.delete(key);
    if (known.goodUntilMs <= performance.now()) return undefined;
    // The first key of the map is the one least recently used.
    this.#known.set(key, known);
    return known.authorization;
  }

  /** Drops the headers for `access` at all addresses of a registry that refuses them. */
  forget(access: Access): void {
    const prefix = prefixOf(access);
    for (const key of this.#known.keys()) if (key.startsWith(prefix)) this.#known.delete(key);
  }

  /**
   * Returns the header that answers a challenge.
   *
   * @param challenge - The WWW-Authenticate of the refusal.
   * @param refused - The header that was refused, if one was sent.
   * @param signal - Ends this wait only; the login in flight continues for other callers.
   * @throws {ObdError} `Unauthorized` if no login fits or the registry refuses it; errors of requestToken() and
   *   Credentials.find().
   */
  async answer(
    access: Access,
    endpoint: Endpoint,
    challenge: string,
    refused: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const newer = this.known(access, endpoint);
    if (newer !== undefined && newer !== refused) return newer;
    const key = keyOf(access, endpoint);
    let fetched = this.#underWay.get(key);
    if (fetched === undefined) {
      const started = this.#fetch(access, endpoint, challenge, refused).finally(() => {
        if (this.#underWay.get(key) === started) this.#underWay.delete(key);
      });
      fetched = started;
      this.#underWay.set(key, started);
    }
    return await unlessAborted(fetched, signal);
  }

  async #fetch(
    access: Access,
    endpoint: Endpoint,
    header: string,
    refused: string | undefined,
  ): Promise<string> {
    const generation = this.#generation;
    const [host = access.host] = endpoint.loginHosts;
    const doing = `Cannot log in to ${host}`;
    const challenges = parseChallenges(header);
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    const basic = challenges.find(({ scheme }) => scheme === 'basic');
    if (bearer === undefined && basic === undefined) {
      const problem = 'it asks for neither a token nor a password, and obd-ts knows no other way';
      throw new ObdError(ErrorCodes.Unauthorized, `${doing}: ${problem}`);
    }
    const login = await this.#find(endpoint);
    const found =
      bearer === undefined
        ? this.#basic(host, login, refused)
        : await this.#bearer(access, endpoint, bearer, login, doing);
    if (generation === this.#generation) this.#remember(keyOf(access, endpoint), found);
    return found.authorization;
  }

  async #find({ loginHosts }: Endpoint): Promise<Login | undefined> {
    for (const host of loginHosts) {
      const found = await this.#credentials.find(host);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #basic(host: string, login: Login | undefined, refused: string | undefined): Known {
    if (login?.kind !== 'password') throw this.refusal(host, `${host} asks for a password`);
    const authorization = basicAuthorization(login.username, login.password);
    if (authorization === refused) throw this.refusal(host, `${host} refuses the password`);
    return { authorization, goodUntilMs: Number.POSITIVE_INFINITY };
  }

  async #bearer(
    access: Access,
    endpoint: Endpoint,
    { parameters }: Challenge,
    login: Login | undefined,
    doing: string,
  ): Promise<Known> {
    const { host, repository, action } = access;
    const asked = parameters.get('scope');
    // A registry challenges for the scope that one request needs; an upload needs to pull as well.
    const scope =
      action === 'push' || asked === undefined
        ? `repository:${repository}:${action === 'push' ? 'pull,push' : action}`
        : asked;
    const { origin } = endpoint;
    const request = { parameters, scope, login, host, origin, doing };
    try {
      const { authorization, lifeMs } = await requestToken(this.#http, this.#hosts, request);
      return { authorization, goodUntilMs: performance.now() + lifeMs - EXPIRY_MARGIN_MS };
    } catch (error) {
      if (!(error instanceof ObdError) || error.code !== ErrorCodes.Unauthorized) throw error;
      throw this.refusal(endpoint.loginHosts[0] ?? host, error.message, error);
    }
  }

  #remember(key: string, known: Known): void {
    this.#known.delete(key);
    const [oldest] = this.#known.keys();
    if (oldest !== undefined && this.#known.size >= AUTHORIZATIONS_MAX) this.#known.delete(oldest);
    this.#known.set(key, known);
  }

  /** An `Unauthorized` that names the place where a login is missing. */
  refusal(host: string, problem: string, cause?: ObdError): ObdError {
    const name = this.#hosts.loginNames(host)[0] ?? host;
    const remedy = `log in with \`docker login ${name}\`; logins are read from ${this.#credentials.label}`;
    const message = `${problem}; ${remedy}`;
    return new ObdError(ErrorCodes.Unauthorized, message, cause?.details ?? {}, cause);
  }
}

function keyOf(access: Access, { origin }: Endpoint): string {
  return `${prefixOf(access)}${origin}`;
}

function prefixOf({ host, repository, action }: Access): string {
  return `${action} ${host}/${repository} at `;
}

async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await promise;
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
