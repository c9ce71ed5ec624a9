/** What proves to a registry who is asking, and who knows it. Nothing here is ever put into a message. */

export type Login =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** A refresh token, as `docker login` gets from registries that speak OAuth 2. */
  | { readonly kind: 'identity-token'; readonly token: string };

export interface Credentials {
  /** For messages: where to look when a login is missing or refused. */
  readonly label: string;

  /**
   * The login for a registry's host (`docker.io`, `localhost:5000`); undefined if there is none.
   * Asked again whenever a registry wants one, so that a new login counts at once.
   *
   * @throws {ObdError} `InvalidArgument`, `Host`, `Io` if there is a store and it does not work.
   */
  find(host: string): Promise<Login | undefined>;
}

export function basicAuthorization(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`;
}
