/** The purpose of a request to a registry. Logins are kept for each access. */

/** The kind of access a request needs, and to which repository. */
export interface Access {
  /** As in a reference: `docker.io`. */
  readonly host: string;
  readonly repository: string;
  readonly action: 'pull' | 'push' | 'delete';
}
