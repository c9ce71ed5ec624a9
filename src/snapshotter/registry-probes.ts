/**
 * Asks registries for blobs, and keeps the answers for ANSWER_MS: a client prepares an image layer by layer, and each layer
 * leads to the same registry.
 *
 *   - Of calls for one blob of one repository at one time, the first asks and all get its answer.
 *   - A registry that cannot be reached is not asked for other repositories either, and one that refuses a repository is
 *     not asked for the repository's other blobs.
 *   - ask() is bounded in time by its caller, and an address that is only a guess by GUESS_MS_MAX.
 */
import { ErrorCodes, hasCode, messageOf, ObdError } from '../errors.js';
import type { RegistryClient } from '../registry/registry-client.js';

const ANSWER_MS = 60_000;
/** A registry that is slow to look up a login or a blob. A pull waits for it. */
const ASK_MS_MAX = 5_000;
/** An address that nobody named: it may lead to a host that never answers. */
const GUESS_MS_MAX = 1_500;
/** Layers of the images that a machine pulls in a minute, many times over. */
const ANSWERS_MAX = 4096;

export interface ProbedBlob {
  readonly host: string;
  readonly repository: string;
  readonly digest: string;
}

interface Answer {
  /** Bytes; undefined if the registry did not say. */
  readonly sizeBytes: number | undefined;
}

interface Kept<T> {
  readonly value: T;
  readonly untilMs: number;
}

export class RegistryProbes {
  readonly #registry: RegistryClient;
  readonly #asking = new Map<string, Promise<Answer>>();
  readonly #answers = new Map<string, Kept<Answer>>();
  /** By host, by host and repository, and by blob: why each is not asked. */
  readonly #refusals = new Map<string, Kept<ObdError>>();

  constructor(registry: RegistryClient) {
    this.#registry = registry;
  }

  /**
   * The size of a blob that the registry gives us.
   *
   * @param isGuess - Nobody named this address: it is waited for a short time only.
   * @throws {ObdError} `NotFound`, `Unauthorized`, `Unavailable`, `Registry`, from this request or one within ANSWER_MS.
   */
  async ask(blob: ProbedBlob, isGuess: boolean): Promise<Answer> {
    const { host, repository, digest } = blob;
    const repositoryKey = `${host}/${repository}`;
    const key = `${repositoryKey}@${digest}`;
    for (const each of [host, repositoryKey, key]) {
      const refusal = kept(this.#refusals, each);
      if (refusal !== undefined) throw refusal;
    }
    const answer = kept(this.#answers, key);
    if (answer !== undefined) return answer;
    let asked = this.#asking.get(key);
    if (asked === undefined) {
      asked = this.#ask(blob, isGuess ? GUESS_MS_MAX : ASK_MS_MAX).finally(() =>
        this.#asking.delete(key),
      );
      this.#asking.set(key, asked);
    }
    return await asked;
  }

  async #ask({ host, repository, digest }: ProbedBlob, msMax: number): Promise<Answer> {
    const repositoryKey = `${host}/${repository}`;
    const signal = AbortSignal.timeout(msMax);
    try {
      const sizeBytes = await this.#registry.probeBlob(host, repository, digest, signal);
      const answer = { sizeBytes };
      keep(this.#answers, `${repositoryKey}@${digest}`, answer);
      return answer;
    } catch (thrown) {
      const error = signal.aborted ? tooSlow(repositoryKey, msMax, thrown) : thrown;
      if (!(error instanceof ObdError)) throw error;
      if (hasCode(error, ErrorCodes.NotFound)) {
        keep(this.#refusals, `${repositoryKey}@${digest}`, error);
      } else {
        keep(this.#refusals, hasCode(error, ErrorCodes.Unavailable) ? host : repositoryKey, error);
      }
      throw error;
    }
  }
}

function kept<T>(map: Map<string, Kept<T>>, key: string): T | undefined {
  const found = map.get(key);
  return found !== undefined && found.untilMs > performance.now() ? found.value : undefined;
}

function keep<T>(map: Map<string, Kept<T>>, key: string, value: T): void {
  if (map.size >= ANSWERS_MAX) map.clear();
  map.set(key, { value, untilMs: performance.now() + ANSWER_MS });
}

function tooSlow(where: string, msMax: number, cause: unknown): ObdError {
  const message = `Cannot ask ${where} for a blob: no answer within ${msMax / 1000} s (${messageOf(cause)})`;
  return new ObdError(ErrorCodes.Unavailable, message, {}, cause);
}
