/**
 * The logins of `docker login`: `auths`, `credHelpers` and `credsStore` of `$DOCKER_CONFIG/config.json`, by default
 * `~/.docker/config.json`. A missing file holds no logins.
 *
 * The file is read anew each time, at most once in a token's life. As in docker, the keys of `auths` may be URLs, and
 * Docker Hub's is `https://index.docker.io/v1/`.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import * as z from 'zod';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';
import { DOCKER_HUB } from '../oci/reference.js';
import { askCredentialHelper } from './credential-helper.js';
import type { Credentials, Login } from './credentials.js';

/** Docker's own key for Docker Hub, from its first protocol. */
const DOCKER_HUB_KEY = `https://index.${DOCKER_HUB}/v1/`;
/** A file with a thousand logins has 200 KiB. */
const CONFIG_BYTES_MAX = 4 << 20;

const entry = z.looseObject({
  auth: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  identitytoken: z.string().optional(),
});

const dockerConfig = z.looseObject({
  auths: z.record(z.string(), entry).optional(),
  credHelpers: z.record(z.string(), z.string()).optional(),
  credsStore: z.string().optional(),
});

type Entry = z.infer<typeof entry>;
type DockerConfig = z.infer<typeof dockerConfig>;

export class DockerCredentials implements Credentials {
  #path: string;

  constructor(path = defaultPath()) {
    this.#path = path;
  }

  get label(): string {
    return `"${this.#path}"`;
  }

  /** Reads another file from the next look-up on. */
  replace(path = defaultPath()): void {
    this.#path = path;
  }

  async find(host: string): Promise<Login | undefined> {
    const config = await this.#read();
    if (config === undefined) return undefined;
    const key = host === DOCKER_HUB ? DOCKER_HUB_KEY : host;
    const helper = config.credHelpers?.[host] ?? config.credHelpers?.[key] ?? config.credsStore;
    if (helper !== undefined && helper !== '') {
      const found = await askCredentialHelper(helper, key);
      if (found !== undefined) return found;
    }
    const entries = Object.entries(config.auths ?? {});
    const exact = entries.find(([name]) => name === key || name === host);
    const found = exact ?? entries.find(([name]) => hostOfKey(name) === host);
    return found === undefined ? undefined : this.#loginOf(found[1], host);
  }

  #loginOf({ auth, username, password, identitytoken }: Entry, host: string): Login | undefined {
    if (identitytoken !== undefined && identitytoken !== '') {
      return { kind: 'identity-token', token: identitytoken };
    }
    if (auth !== undefined && auth !== '') {
      const decoded = Buffer.from(auth, 'base64').toString('utf8');
      const colon = decoded.indexOf(':');
      if (colon < 1) throw this.#refuse(`"auth" of ${host} is not base64 of user:password`);
      const secret = decoded.slice(colon + 1).replace(/\0+$/, '');
      return { kind: 'password', username: decoded.slice(0, colon), password: secret };
    }
    if (username === undefined || username === '' || password === undefined) return undefined;
    return { kind: 'password', username, password };
  }

  async #read(): Promise<DockerConfig | undefined> {
    const text = await this.#readText();
    if (text === undefined) return undefined;
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      // Without the parser's message: it quotes the file, which holds passwords.
      throw this.#refuse('it is not JSON');
    }
    const parsed = dockerConfig.safeParse(json);
    if (parsed.success) return parsed.data;
    const { path = [], message = '' } = parsed.error.issues[0] ?? {};
    throw this.#refuse(`"${path.join('.')}": ${message}`);
  }

  async #readText(): Promise<string | undefined> {
    let file: FileHandle | undefined;
    try {
      file = await open(this.#path, 'r');
      const { size } = await file.stat();
      if (size > CONFIG_BYTES_MAX) throw this.#refuse(`it has ${size} bytes`);
      return await file.readFile('utf8');
    } catch (error) {
      const system = systemCode(error);
      if (system === 'ENOENT' || system === 'ENOTDIR') return undefined;
      if (system === undefined) throw error;
      const message = `Cannot read the logins of ${this.label}: ${messageOf(error)}`;
      throw new ObdError(ErrorCodes.Io, message, { path: this.#path }, error);
    } finally {
      await file?.close();
    }
  }

  #refuse(problem: string): ObdError {
    return new ObdError(
      ErrorCodes.InvalidArgument,
      `Cannot read the logins of ${this.label}: ${problem}; repair it, or move it away and log in again`,
      { path: this.#path },
    );
  }
}

function defaultPath(): string {
  const directory = process.env['DOCKER_CONFIG'];
  const given = directory !== undefined && directory !== '';
  return join(given ? directory : join(homedir(), '.docker'), 'config.json');
}

/** `https://host/v1/` and `host/` are keys of `host`; podman's key `host/path` is for one repository. */
function hostOfKey(key: string): string {
  return key.replace(/^https?:\/\//, '').replace(/\/(v[12]\/?)?$/, '');
}
