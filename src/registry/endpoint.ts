/** One address at which the registry of a name answers: the registry itself, or a mirror of it. */

export interface TlsSettings {
  /** Certificates in PEM that are trusted in addition to the system's. */
  readonly ca: readonly string[];
  /** Accepts any certificate. */
  readonly skipVerify: boolean;
}

export interface Endpoint {
  /** `https://host[:port]` */
  readonly origin: string;
  /** The path before the repository: `/v2`, or a mirror's own. */
  readonly prefix: string;
  /** An address for pushes is one for deletions. */
  readonly actions: readonly ('pull' | 'push')[];
  /** The hosts whose login may be sent here, first match first. */
  readonly loginHosts: readonly string[];
  /** For a mirror: the name whose images it mirrors. Undefined for the registry itself. */
  readonly mirrorOf: string | undefined;
  readonly tls: TlsSettings | undefined;
  /** Sent only to this address. */
  readonly headers: Readonly<Record<string, string>>;
}

/** Distinguishes the endpoints of a name: one origin may have several. */
export function addressOf({ origin, prefix }: Endpoint): string {
  return `${origin}${prefix}`;
}

/**
 * The address of a resource at an endpoint.
 *
 * @param url - The resource at the registry itself: its path begins with `/v2/`.
 */
export function urlAt({ origin, prefix, mirrorOf }: Endpoint, url: URL): URL {
  const at = new URL(`${origin}${prefix}${url.pathname.slice('/v2'.length)}${url.search}`);
  // containerd names the registry in this way to a mirror of several.
  if (mirrorOf !== undefined) at.searchParams.set('ns', mirrorOf);
  return at;
}
