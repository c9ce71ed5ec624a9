/** Interface of the logins for registries. No message may contain one. */

export type Login =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** A refresh token, as `docker login` gets from registries that speak OAuth 2. */
  | { readonly kind: 'identity-token'; readonly token: string };

export interface Credentials {
  /** The place of the logins, for messages about a missing or refused login. */
  readonly label: string;

  /**
   * Returns the login for a registry's host (`docker.io`, `localhost:5000`); undefined if there is none. Called
   * whenever a registry requires a login, so that a new login takes effect at once.
   *
   * @throws {ObdError} `InvalidArgument`, `Host`, `Io` if the store of logins is unusable.
   */
  find(host: string): Promise<Login | undefined>;
}

export function basicAuthorization(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`;
}
