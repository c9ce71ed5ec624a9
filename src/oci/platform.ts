/**
 * Platforms of images: `os/architecture[/variant]`, in Go's names (OCI image index, "platform").
 *
 * arm64's only variant is v8, and most manifests leave it out: a variant that either side leaves out matches any.
 */
import { ErrorCodes, ObdError } from '../errors.js';

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string | undefined;
}

/** Maps Node's names of architectures to Go's. */
const GO_ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  ia32: '386',
  ppc64: 'ppc64le',
  loong64: 'loong64',
  mipsel: 'mipsle',
};

export function hostPlatform(): Platform {
  return { os: 'linux', architecture: GO_ARCHITECTURES[process.arch] ?? process.arch };
}

/** @throws {ObdError} `InvalidArgument`. */
export function parsePlatform(text: string): Platform {
  const match = /^([a-z0-9]+)\/([a-z0-9_]+)(?:\/([a-z0-9.]+))?$/.exec(text);
  if (match === null) {
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `"${text}" is no platform: write it as os/architecture or os/architecture/variant, e.g. linux/arm64`,
    );
  }
  const [, os, architecture, variant] = match as unknown as [string, string, string, string?];
  return { os, architecture, variant };
}

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, ...(variant === undefined ? [] : [variant])].join('/');
}

export function matchesPlatform(wanted: Platform, offered: Platform): boolean {
  if (wanted.os !== offered.os || wanted.architecture !== offered.architecture) return false;
  if (wanted.variant === undefined || offered.variant === undefined) return true;
  return wanted.variant === offered.variant;
}
