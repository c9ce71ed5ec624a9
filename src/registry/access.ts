/** What a request to a registry is for; logins are kept per access. */

/** The kind of access a request needs, and to which repository. */
export interface Access {
  /** As in a reference: `docker.io`. */
  readonly host: string;
  readonly repository: string;
  readonly action: 'pull' | 'push';
}
