/**
 * Asks registries for blobs, and keeps the answers for ANSWER_MS: a client prepares an image layer by layer, and each layer
 * leads to the same registry.
 *
 *   - Concurrent calls for one blob of one repository share one request.
 *   - A registry that cannot be reached is not asked for other repositories either, and one that refuses a repository is
 *     not asked for the repository's other blobs.
 *   - A changed configuration (hosts.toml, a reload) invalidates the registry's answers, and a refused login is kept only
 *     for LOGIN_MS: the operator fixes either, and pulls again.
 *   - A request is bounded by ASK_MS_MAX, and for a guessed address by GUESS_MS_MAX.
 *
 * The daemon asks where it is the one that will read, as it fetches what opening the image needs with the same request. It is
 * not told to go to guessed addresses. Where it has had no answer from the host for HEAD_START_MS, a request for one byte is
 * sent beside it: a dead host is found sooner. While it has, layers wait for their turn: many of them take a while on a slow link.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, ErrorCodes, hasCode, messageOf, ObdError } from '../errors.js';
import type { BlobPart } from '../layers/opening-parts.js';
import { brokenPromise } from '../registry/blob-probe.js';
import type { RegistryClient } from '../registry/registry-client.js';
import type { RegistryHosts } from '../registry/registry-hosts.js';

const ANSWER_MS = 60_000;
/** A retry costs one request, which the registry answers at once. */
const LOGIN_MS = 10_000;
/** Enough for a registry that is slow to look up a login or a blob; a pull waits for it. */
const ASK_MS_MAX = 5_000;
/** For a guessed address, whose host may never answer. */
const GUESS_MS_MAX = 1_500;
/**
 * In this time the daemon gets an answer from most registries. With a connect time-out of 1.5 s, a silent address costs a pull
 * 2 s.
 */
const HEAD_START_MS = 500;
/** For one layer, also while the daemon has answers for others. */
const WAIT_MS_MAX = 60_000;
/** What only a registry, or its comparison with what an image says, comes to. */
const ANSWERS: readonly ErrorCode[] = [
  ErrorCodes.NotFound,
  ErrorCodes.Unauthorized,
  ErrorCodes.Registry,
  ErrorCodes.Corrupt,
  ErrorCodes.InvalidArgument,
];
/** Many times the layers that a machine pulls in a minute. */
const ANSWERS_MAX = 4096;

export interface ProbedBlob {
  readonly host: string;
  readonly repository: string;
  readonly digest: string;
  /** As its image says. */
  readonly sizeBytes: number;
  /** What opening it needs. */
  readonly parts: readonly BlobPart[];
}

/** The call of obd-blockd's client that is used here. */
export interface ProbingDaemon {
  probe(
    blob: {
      readonly host: string;
      readonly repository: string;
      readonly digest: string;
      readonly sizeBytes: number;
    },
    parts: readonly BlobPart[],
    signal: AbortSignal,
  ): Promise<void>;
}

interface Answer {
  /** Bytes; undefined if the registry did not say. */
  readonly sizeBytes: number | undefined;
  /** The size that was asked for. */
  readonly promised: number;
  /** The header of the hash tree that was asked for, and found. */
  readonly header: BlobPart | undefined;
}

/** The cache keys of an answer: all blobs of a host, all blobs of one repository, one blob. */
interface Keys {
  readonly host: string;
  readonly repository: string;
  readonly blob: string;
}

interface Cached<T> {
  readonly value: T;
  readonly untilMs: number;
}

export class RegistryProbes {
  readonly #registry: RegistryClient;
  readonly #hosts: RegistryHosts;
  readonly #daemon: ProbingDaemon | undefined;
  readonly #asking = new Map<string, Promise<Answer>>();
  readonly #answers = new Map<string, Cached<Answer>>();
  /** Why each is not asked, by host, by host and repository, and by blob. */
  readonly #refusals = new Map<string, Cached<ObdError>>();
  /** When the daemon has last had an answer, on the clock of performance.now(), by host. */
  readonly #daemonAnswersMs = new Map<string, Cached<number>>();
  /** Counts invalidate() calls: the answer to a request in flight during such a call is not kept. */
  #generation = 0;

  /**
   * @param hosts - The hosts of `registry`.
   * @param daemon - Asks in place of `registry`, where it has the same logins.
   */
  constructor(registry: RegistryClient, hosts: RegistryHosts, daemon?: ProbingDaemon) {
    this.#registry = registry;
    this.#hosts = hosts;
    this.#daemon = daemon;
  }

  /** Invalidates all answers, also of requests in flight, for instance after logins have changed. */
  invalidate(): void {
    this.#generation++;
    this.#asking.clear();
    this.#answers.clear();
    this.#refusals.clear();
  }

  /**
   * The size of a blob that the registry gives us.
   *
   * @param isGuess - A guessed address gets the shorter limit GUESS_MS_MAX.
   * @throws {ObdError} `NotFound`, `Unauthorized`, `Unavailable`, `Registry`, from this request or one within ANSWER_MS.
   */
  async ask(blob: ProbedBlob, isGuess: boolean): Promise<Answer> {
    const keys = this.#keysOf(blob);
    const key = keys.blob;
    // A registry that has become unavailable has given this blob within the minute, and reads of it wait for the registry.
    const answer = kept(this.#answers, key);
    if (answer !== undefined && answers(answer, blob)) return answer;
    for (const each of Object.values(keys)) {
      const refusal = kept(this.#refusals, each);
      if (refusal !== undefined) throw refusal;
    }
    let asked = this.#asking.get(key);
    if (asked === undefined) {
      const started = this.#ask(blob, keys, isGuess).finally(() => {
        if (this.#asking.get(key) === started) this.#asking.delete(key);
      });
      asked = started;
      this.#asking.set(key, started);
    }
    const found = await asked;
    // Another image says another size, so that an address with this one may have been passed by.
    return answers(found, blob) ? found : await this.#ask(blob, keys, isGuess);
  }

  #keysOf({ host, repository, digest }: ProbedBlob): Keys {
    const at = `${host} ${this.#hosts.settingsOf(host)}`;
    return { host: at, repository: `${at} ${repository}`, blob: `${at} ${repository}@${digest}` };
  }

  async #ask(blob: ProbedBlob, keys: Keys, isGuess: boolean): Promise<Answer> {
    const { host, repository } = blob;
    const generation = this.#generation;
    const msMax = isGuess ? GUESS_MS_MAX : ASK_MS_MAX;
    const startedMs = performance.now();
    const { signal, end } = this.#limit(host, startedMs, msMax);
    try {
      const sizeBytes = await this.#sizeOf(blob, isGuess, startedMs, signal);
      const answer = { sizeBytes, promised: blob.sizeBytes, header: headerIn(blob) };
      if (generation === this.#generation) keep(this.#answers, keys.blob, answer);
      return answer;
    } catch (thrown) {
      const error = signal.aborted ? tooSlow(`${host}/${repository}`, msMax, thrown) : thrown;
      if (!(error instanceof ObdError) || generation !== this.#generation) throw error;
      if (hasCode(error, ErrorCodes.Unavailable)) keep(this.#refusals, keys.host, error);
      else if (hasCode(error, ErrorCodes.Unauthorized)) {
        keep(this.#refusals, keys.repository, error, LOGIN_MS);
      } else if (!hasCode(error, ErrorCodes.Corrupt)) keep(this.#refusals, keys.blob, error);
      // The digest of a part is wrong in this image: others that have the blob may name the right one.
      throw error;
    } finally {
      end();
    }
  }

  /** A signal that is aborted when the daemon has had no answer from the host for `msMax`. `end` releases its timer. */
  #limit(
    host: string,
    startedMs: number,
    msMax: number,
  ): { readonly signal: AbortSignal; readonly end: () => void } {
    const controller = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const look = () => {
      const leftMs = this.#leftMs(host, startedMs, msMax);
      if (leftMs > 0) timer = setTimeout(look, leftMs);
      else controller.abort(new DOMException('no answer in time', 'TimeoutError'));
    };
    look();
    return { signal: controller.signal, end: () => clearTimeout(timer) };
  }

  /** What is left of `msMax` since the daemon's last answer from the host, or since the start. */
  #leftMs(host: string, startedMs: number, msMax: number): number {
    const answeredMs = kept(this.#daemonAnswersMs, host) ?? 0;
    const untilMs = Math.max(startedMs, answeredMs) + msMax;
    return Math.min(untilMs, startedMs + WAIT_MS_MAX) - performance.now();
  }

  async #sizeOf(
    blob: ProbedBlob,
    isGuess: boolean,
    startedMs: number,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    if (this.#daemon === undefined || isGuess)
      return (await this.#askItself(blob, signal)).sizeBytes;
    const { host, repository, digest, sizeBytes, parts } = blob;
    const address = { host, repository, digest, sizeBytes };
    const byDaemon = this.#daemon.probe(address, parts, signal).then(
      () => {
        keep(this.#daemonAnswersMs, host, performance.now());
        return { sizeBytes };
      },
      (error: unknown) => {
        if (!mayBeDaemon(error)) throw error;
        return undefined;
      },
    );
    for (let leftMs = HEAD_START_MS; leftMs > 0; ) {
      const answered = byDaemon.then((answer) => ({ answer }));
      const early = await Promise.race([answered, sleep(leftMs)]);
      if (early?.answer !== undefined) return early.answer.sizeBytes;
      leftMs = early === undefined ? this.#leftMs(host, startedMs, HEAD_START_MS) : 0;
    }
    const asked = this.#askItself(blob, signal);
    // The daemon can compare a header also where the registry sends no parts of blobs.
    const proved = asked.then(async (found) => (found.isProved ? found : await byDaemon) ?? found);
    const late = byDaemon.then(async (answer) => answer ?? (await asked));
    return (await Promise.race([proved, late])).sizeBytes;
  }

  async #askItself(
    blob: ProbedBlob,
    signal: AbortSignal,
  ): Promise<{ readonly sizeBytes: number | undefined; readonly isProved: boolean }> {
    const { host, repository, digest, sizeBytes } = blob;
    const promise = { sizeBytes, part: headerIn(blob) };
    const found = await this.#registry.probeBlob(host, repository, digest, signal, promise);
    const problem = brokenPromise({ ...found, sizeBytes }, promise);
    if (problem !== undefined) {
      const message = `Cannot use ${digest} of ${host}/${repository}: ${problem}`;
      throw new ObdError(ErrorCodes.Corrupt, message, { digest });
    }
    const isProved = promise.part === undefined || found.part !== undefined;
    return { sizeBytes: found.sizeBytes, isProved };
  }
}

/**
 * Whether an error may say more of the daemon than of the registry: it is away, stops, is of a version before, or has no
 * descriptor left. If it is the registry, asking it shows this.
 */
function mayBeDaemon(error: unknown): boolean {
  return error instanceof ObdError && !ANSWERS.includes(error.code);
}

/** Whether the blob was asked for with this size, or another one does not matter. */
function answers({ sizeBytes, promised, header }: Answer, blob: ProbedBlob): boolean {
  const isSized = sizeBytes === undefined || [sizeBytes, promised].includes(blob.sizeBytes);
  const wanted = headerIn(blob);
  const { offset, digest } = wanted ?? {};
  return (
    isSized && (wanted === undefined || (offset === header?.offset && digest === header?.digest))
  );
}

/** The part whose digest the image names: the header of the layer's hash tree. */
function headerIn({ parts }: ProbedBlob): (BlobPart & { readonly digest: string }) | undefined {
  for (const { digest, ...part } of parts) if (digest !== undefined) return { ...part, digest };
  return undefined;
}

function kept<T>(map: Map<string, Cached<T>>, key: string): T | undefined {
  const found = map.get(key);
  return found !== undefined && found.untilMs > performance.now() ? found.value : undefined;
}

function keep<T>(map: Map<string, Cached<T>>, key: string, value: T, forMs = ANSWER_MS): void {
  const nowMs = performance.now();
  map.delete(key);
  for (const [oldest, { untilMs }] of map) {
    if (untilMs > nowMs && map.size < ANSWERS_MAX) break;
    map.delete(oldest);
  }
  map.set(key, { value, untilMs: nowMs + forMs });
}

function tooSlow(where: string, msMax: number, cause: unknown): ObdError {
  const message = `Cannot ask ${where} for a blob: no answer within ${msMax / 1000} s (${messageOf(cause)})`;
  return new ObdError(ErrorCodes.Unavailable, message, {}, cause);
}
