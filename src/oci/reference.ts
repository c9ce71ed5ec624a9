/**
 * Image references as docker and containerd read them: `[host[:port]/]repository[:tag][@digest]`.
 *
 *   debian                -> docker.io/library/debian:latest
 *   user/app:1            -> docker.io/user/app:1
 *   localhost:5000/app    -> localhost:5000/app:latest
 *   ghcr.io/x/y@sha256:.. -> ghcr.io/x/y@sha256:..
 *
 * The first component is a host if it holds a dot, a colon or a capital letter, or is `localhost`; without
 * one it is Docker Hub, whose one-word repositories are in `library/`. Grammar and limits: OCI distribution
 * spec 1.1 ("Pulling manifests"), and the grammar of distribution's `reference` package.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { digestProblem } from './digest.js';

export const DOCKER_HUB = 'docker.io';
const DEFAULT_TAG = 'latest';

/** Host and repository together; most clients and registries refuse longer names. */
const NAME_LENGTH_MAX = 255;
/** Room for the name, a tag of 128 characters and a digest, three times over. */
const REFERENCE_LENGTH_MAX = 2048;

const HOST =
  /^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:.]+\])(?::([0-9]{1,5}))?$/;
const REPOSITORY =
  /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

export function isTag(text: string): boolean {
  return TAG.test(text);
}

/** `name`, `name:port`, `1.2.3.4`, `[::1]:5000`. */
export function isHost(text: string): boolean {
  const match = text.length <= NAME_LENGTH_MAX ? HOST.exec(text) : null;
  if (match === null) return false;
  const port = match[1];
  if (port !== undefined && !(Number(port) >= 1 && Number(port) <= 65535)) return false;
  return URL.canParse(`http://${text}`);
}

/** Returns `name` of `name:port`. */
export function withoutPort(host: string): string {
  return host.replace(/:[0-9]+$/, '');
}

export function isRepository(text: string): boolean {
  return text.length <= NAME_LENGTH_MAX && REPOSITORY.test(text);
}

export class ImageReference {
  /** As in `localhost:5000`; `docker.io` for every spelling of Docker Hub. */
  readonly host: string;
  readonly repository: string;
  /** Undefined only if there is a digest. */
  readonly tag: string | undefined;
  readonly digest: string | undefined;

  constructor(
    host: string,
    repository: string,
    tag: string | undefined,
    digest: string | undefined,
  ) {
    this.host = host;
    this.repository = repository;
    this.tag = tag;
    this.digest = digest;
  }

  /** The digest or tag to request. A digest wins: a tag next to it is a comment. */
  get target(): string {
    return this.digest ?? this.tag ?? DEFAULT_TAG;
  }

  /** The full form: parseReference() of it gives the same reference. */
  toString(): string {
    const tag = this.tag === undefined ? '' : `:${this.tag}`;
    const digest = this.digest === undefined ? '' : `@${this.digest}`;
    return `${this.host}/${this.repository}${tag}${digest}`;
  }
}

/** @throws {ObdError} `InvalidArgument` with the problem and the remedy; `Unsupported` for a sha512 digest. */
export function parseReference(text: string): ImageReference {
  const refuse = (problem: string, code = ErrorCodes.InvalidArgument as ObdError['code']) => {
    const shown = JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}...` : text);
    return new ObdError(code, `${shown} is no image reference: ${problem}`, {
      reference: text.slice(0, REFERENCE_LENGTH_MAX),
    });
  };
  if (text === '') throw refuse('it is empty; write it as host/repository:tag');
  if (text.length > REFERENCE_LENGTH_MAX) {
    throw refuse(`it has ${text.length} characters, and the limit is ${REFERENCE_LENGTH_MAX}`);
  }
  const scheme = /^[a-z]+:\/\//i.exec(text)?.[0];
  if (scheme !== undefined) throw refuse(`leave out "${scheme}"; write it as host/repository:tag`);

  const at = text.indexOf('@');
  const digest = at === -1 ? undefined : text.slice(at + 1);
  if (digest !== undefined) {
    const found = digestProblem(digest);
    if (found?.unsupported === true) throw refuse(found.problem, ErrorCodes.Unsupported);
    if (found !== undefined) throw refuse(`after "@", ${found.problem}`);
  }
  const named = at === -1 ? text : text.slice(0, at);
  const colon = named.lastIndexOf(':');
  const hasTag = colon > named.lastIndexOf('/');
  const tag = hasTag ? named.slice(colon + 1) : undefined;
  if (tag !== undefined && !TAG.test(tag)) {
    const rule = 'up to 128 letters, digits, "_", "." and "-", not beginning with "." or "-"';
    throw refuse(`"${tag.slice(0, 40)}" is no tag: ${rule}`);
  }

  const { host, repository } = splitHost(hasTag ? named.slice(0, colon) : named);
  if (!isHost(host)) throw refuse(`"${host.slice(0, 80)}" is no host, or no host and port`);
  if (repository === '') throw refuse(`it names no repository at "${host}"`);
  if (`${host}/${repository}`.length > NAME_LENGTH_MAX) {
    throw refuse(`its name is longer than ${NAME_LENGTH_MAX} characters`);
  }
  if (!REPOSITORY.test(repository)) {
    const remedy =
      repository === repository.toLowerCase()
        ? 'parts of a repository name are lower-case letters and digits, joined by ".", "_", "__" or "-"'
        : 'repository names are in lower case';
    throw refuse(`${remedy}; found "${repository.slice(0, 80)}"`);
  }
  if (!hasTag && digest === undefined && /^[0-9a-f]{64}$/.test(named)) {
    throw refuse('it is an image ID, which a registry does not know');
  }
  return new ImageReference(
    host,
    repository,
    tag ?? (digest === undefined ? DEFAULT_TAG : undefined),
    digest,
  );
}

function splitHost(name: string): { host: string; repository: string } {
  const slash = name.indexOf('/');
  const first = slash === -1 ? '' : name.slice(0, slash);
  const isHost = first === 'localhost' || /[.:A-Z]/.test(first);
  if (slash !== -1 && isHost && first !== DOCKER_HUB && first !== `index.${DOCKER_HUB}`) {
    return { host: first, repository: name.slice(slash + 1) };
  }
  const path = isHost ? name.slice(slash + 1) : name;
  const repository = path.includes('/') || path === '' ? path : `library/${path}`;
  return { host: DOCKER_HUB, repository };
}
