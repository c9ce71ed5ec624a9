/**
 * One request to a registry and its final answer. It tries the registry's addresses in order until one has the object,
 * answers at most one challenge at each and follows at most REDIRECTS_MAX redirects. No address is asked twice. An address
 * that answered with something else before is asked last (wrong-answers.ts).
 *
 * Only the address that asked for Authorization gets it: the first redirect to another origin ends it for the rest of
 * the chain. A redirect from TLS to plain HTTP is refused, unless the target is listed: a registry can neither move
 * downloads or uploads into the clear, nor send requests to a port of this machine.
 */
import { ErrorCodes, hasCode, ObdError, systemCode } from '../errors.js';
import type { Access } from './access.js';
import { Authenticator } from './authenticator.js';
import type { Credentials } from './credentials.js';
import { addressOf, type Endpoint, urlAt } from './endpoint.js';
import { HttpClient, type HttpRequest, type HttpResponse } from './http-client.js';
import { quotable } from './quotable.js';
import { isContent } from './range-answer.js';
import type { RegistryHosts } from './registry-hosts.js';
import type { RegistryLimits } from './registry-limits.js';
import { type Remedies, responseError } from './response-error.js';
import { WrongAnswers } from './wrong-answers.js';

/** Three are common: registry to mirror, mirror to storage, storage to its region. */
const REDIRECTS_MAX = 6;
const REDIRECTS: readonly number[] = [301, 302, 303, 307, 308];

export interface RegistryRequest extends Omit<HttpRequest, 'body'> {
  readonly access: Access;
  /** Called each time the request is sent. */
  readonly body?: () => NonNullable<HttpRequest['body']>;
}

/** For logs. */
export const WRONG_ANSWER_EVENT = 'wrong answer of a mirror, another address is asked';

/** @param address - A mirror or registry whose answer was wrong, so that another one is asked. */
export type ReportWrongAnswer = (address: string, error: ObdError) => void;

export class RegistryExchange {
  readonly #http: HttpClient;
  readonly #hosts: RegistryHosts;
  readonly #authenticator: Authenticator;
  readonly #wrong = new WrongAnswers();
  readonly #reportWrong: ReportWrongAnswer;
  /** The `settings` that the marks of #wrong belong to. */
  #wrongSettings: number;

  constructor(
    hosts: RegistryHosts,
    credentials: Credentials,
    limits: RegistryLimits,
    reportWrong: ReportWrongAnswer = () => {},
  ) {
    this.#reportWrong = reportWrong;
    this.#wrongSettings = hosts.version;
    this.#http = new HttpClient(limits);
    this.#hosts = hosts;
    this.#authenticator = new Authenticator(this.#http, hosts, credentials);
  }

  /** Changes with each reload of the registries' configuration. */
  get settings(): number {
    return this.#hosts.version;
  }

  /** `path` is relative to the repository: `blobs/sha256:...`. */
  urlOf({ host, repository }: Access, path: string): URL {
    return new URL(`${this.#hosts.originOf(host)}/v2/${repository}/${path}`);
  }

  /** Whether it is an address of the registry or of its mirrors, rather than the target of a redirect. */
  isHome(access: Access, url: URL): boolean {
    return this.#endpointAt(access, url) !== undefined;
  }

  /**
   * Follows redirects of GET and HEAD; the answer's `url` is the final address. A `url` outside the registry (a signed
   * one, kept from before) is requested without Authorization.
   *
   * @throws {ObdError} errors of HttpClient.send() and Authenticator.answer() for the last address that was asked;
   *   `Registry` for a refused redirect.
   */
  async send(request: RegistryRequest): Promise<HttpResponse> {
    const { access, method, url, signal } = request;
    const { host } = access;
    if (url.origin !== this.#hosts.originOf(host) || !url.pathname.startsWith('/v2/')) {
      return await this.#sendTo(this.#endpointAt(access, url), request);
    }
    const endpoints = this.#endpointsFor(access, url);
    const failures: string[] = [];
    for (const [i, endpoint] of endpoints.entries()) {
      const isLast = i + 1 === endpoints.length;
      let hasAnswered = false;
      const onAnswer = (status: number) => {
        hasAnswered = true;
        if (status === 400) this.#hosts.answeredBadRequest(host, endpoint);
        else this.#hosts.answered(host, endpoint);
      };
      try {
        const sent = { ...request, url: urlAt(endpoint, url) };
        const response = await this.#sendTo(endpoint, sent, onAnswer);
        const isRefused = response.status >= 400 || (method === 'GET' && !isContent(response));
        if (isLast || !isRefused || endpoint.mirrorOf === undefined) return response;
        failures.push(`${endpoint.origin}: it answered ${response.status}`);
        await response.discard();
      } catch (error) {
        if (signal?.aborted === true || !(error instanceof ObdError)) throw error;
        // The target of a redirect, or the token server, failed: not this address.
        if (hasCode(error, ErrorCodes.Unavailable) && !hasAnswered) {
          this.#hosts.failed(host, endpoint);
        }
        const isFound = hasAnswered && endpoint.mirrorOf === undefined;
        if (isLast || isFound || endsSearch(endpoint, error)) throw withFailures(error, failures);
        failures.push(`${endpoint.origin}: ${error.message.replace(`${request.doing}: `, '')}`);
      }
    }
    throw new TypeError('a registry has an address');
  }

  /**
   * The answer was not the blob or manifest at `url` of urlOf(): its sender is asked last for a while.
   *
   * @param askedOf - HttpResponse.askedOf
   * @param passedBy - The senders that one operation has passed by already. It ends with the second wrong answer of one: then
   *   the addresses that are asked before it do not answer at all.
   * @returns Whether the next request for it goes to an address that has not answered wrongly.
   */
  passBy(
    access: Access,
    url: URL,
    askedOf: string | undefined,
    error: ObdError,
    passedBy: Set<string> = new Set(),
  ): boolean {
    if (askedOf === undefined || passedBy.has(askedOf)) return false;
    passedBy.add(askedOf);
    const isFirst = this.#wrong.add(url.href, askedOf);
    const endpoints = this.#hosts.endpointsOf(access.host, access.action);
    const isOtherLeft = endpoints.some((endpoint) => !this.#wrong.has(url.href, endpoint));
    if (isFirst && isOtherLeft) this.#reportWrong(askedOf, error);
    return isOtherLeft;
  }

  #endpointsFor({ host, action }: Access, url: URL): readonly Endpoint[] {
    if (this.#wrongSettings !== this.settings) this.#wrong.clear();
    this.#wrongSettings = this.settings;
    return this.#wrong.inOrder(url.href, this.#hosts.endpointsOf(host, action));
  }

  #endpointAt({ host, action }: Access, url: URL): Endpoint | undefined {
    const endpoints = this.#hosts.endpointsOf(host, action);
    return endpoints.find(({ origin }) => origin === url.origin);
  }

  async #sendTo(
    endpoint: Endpoint | undefined,
    { access, body, headers, ...rest }: RegistryRequest,
    onAnswer: (status: number) => void = () => {},
  ): Promise<HttpResponse> {
    const follows = rest.method === 'GET' || rest.method === 'HEAD';
    let { url } = rest;
    let home = endpoint;
    const askedOf = endpoint === undefined ? rest.askedOf : addressOf(endpoint);
    let authorization = home && this.#authenticator.known(access, home);
    let challenged = false;
    for (let redirects = 0; ; ) {
      const secret: Readonly<Record<string, string>> =
        home !== undefined && authorization !== undefined ? { authorization } : {};
      const sent = body === undefined ? {} : { body: body() };
      const response = await this.#http.send({
        ...rest,
        ...sent,
        url,
        askedOf,
        headers: { ...home?.headers, ...headers, ...secret },
        tls: home === undefined ? this.#hosts.tlsFor(access.host, url) : home.tls,
      });
      if (home !== undefined) onAnswer(response.status);
      const challenge = response.header('www-authenticate');
      const refused = response.status === 401 || response.status === 403;
      if (refused && home !== undefined && !challenged && challenge !== undefined) {
        challenged = true;
        await response.discard();
        authorization = await this.#authenticator.answer(
          access,
          home,
          challenge,
          authorization,
          rest.signal,
        );
        continue;
      }
      const location = response.header('location');
      if (!follows || !REDIRECTS.includes(response.status) || location === undefined) {
        return response;
      }
      await response.discard();
      url = this.locationOf(response, location);
      if (url.origin !== home?.origin) home = undefined;
      if (++redirects > REDIRECTS_MAX) {
        throw redirectError(response, `it redirected more than ${REDIRECTS_MAX} times`);
      }
    }
  }

  /**
   * Returns the target of a Location header.
   *
   * @throws {ObdError} `Registry` if it is not a URL, or leaves TLS for a host that is not listed.
   */
  locationOf(response: HttpResponse, location: string): URL {
    if (!URL.canParse(location, response.url.href)) {
      throw redirectError(response, 'it is not a URL');
    }
    const target = new URL(location, response.url);
    if (this.#hosts.mayGoOn(response.url, target)) return target;
    throw redirectError(
      response,
      `it leaves TLS for ${quotable(target.protocol)}//${quotable(target.host)}; to trust it, list it in plain_http`,
    );
  }

  /** Makes the next request log in again. */
  forgetLogin(access: Access): void {
    this.#authenticator.forget(access);
  }

  /** Returns the error for an unexpected answer. */
  async errorOf(
    response: HttpResponse,
    access: Access,
    remedies: Remedies = {},
  ): Promise<ObdError> {
    const error = await responseError(response, remedies);
    if (error.code !== ErrorCodes.Unauthorized) return error;
    const { host } = access;
    if (this.isHome(access, response.url)) {
      return this.#authenticator.refusal(host, error.message, error);
    }
    const message = `${error.message}; registry ${host} sent the request there, and its login stays with it: check the address and the storage settings of that registry`;
    return new ObdError(error.code, message, error.details, error);
  }

  /** Invalidates every login. */
  forgetLogins(): void {
    this.#authenticator.forgetAll();
  }

  /** Aborts the requests in flight. Idempotent. */
  async close(): Promise<void> {
    await this.#http.close();
  }
}

/** Whether a host that did not answer one protocol in time gets a request over the other one. */
function endsSearch({ mirrorOf }: Endpoint, { cause }: ObdError): boolean {
  return mirrorOf === undefined && systemCode(cause) === 'UND_ERR_CONNECT_TIMEOUT';
}

/** Names the addresses that were tried before the last one. */
function withFailures(error: ObdError, failures: readonly string[]): ObdError {
  if (failures.length === 0) return error;
  const message = `${error.message}; before that, ${failures.join('; ')}`;
  return new ObdError(error.code, message, error.details, error);
}

function redirectError({ doing, url }: HttpResponse, problem: string): ObdError {
  const message = `${doing}: cannot follow the redirect of registry ${url.host}: ${problem}`;
  return new ObdError(ErrorCodes.Registry, message);
}
