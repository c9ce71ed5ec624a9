/**
 * Opens the source or destination that a user typed: `docker://REFERENCE`, the bare reference, or
 * `oci:DIR[:tag]`. Opening makes no request and writes nothing.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { ImageDestination, ImageSource } from '../oci/image-store.js';
import { type ImageReference, isTag, parseReference } from '../oci/reference.js';
import type { NoteUpload } from './blob-upload.js';
import { OciLayoutDestination } from './oci-layout-destination.js';
import { OciLayoutSource } from './oci-layout-source.js';
import type { RegistryClient } from './registry-client.js';
import { RegistryDestination, RegistrySource } from './registry-image.js';

export interface OpenOptions {
  /** Used for references only; the caller closes it. */
  readonly client: RegistryClient;
  /** Aborts the store's operations, which then throw its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called with each upload session at a registry. */
  readonly noteUpload?: NoteUpload | undefined;
}

export interface LayoutName {
  readonly directory: string;
  readonly tag: string | undefined;
}

export type ImageName = ImageReference | LayoutName;

/** @throws {ObdError} `InvalidArgument` if `text` is neither form. */
export function imageNameOf(text: string): ImageName {
  return layoutOf(text) ?? parseReference(bare(text));
}

/** @throws {ObdError} `InvalidArgument` if `text` is neither form. */
export function openImageSource(text: string, { client, signal }: OpenOptions): ImageSource {
  const layout = layoutOf(text);
  if (layout !== undefined) return new OciLayoutSource(layout.directory, layout.tag, signal);
  return new RegistrySource(client, parseReference(bare(text)), signal);
}

/** @throws {ObdError} `InvalidArgument` if `text` is neither form, or names an image by digest. */
export function openImageDestination(
  text: string,
  { client, signal, noteUpload }: OpenOptions,
): ImageDestination {
  const layout = layoutOf(text);
  if (layout !== undefined) return new OciLayoutDestination(layout.directory, layout.tag, signal);
  const reference = parseReference(bare(text));
  if (reference.digest !== undefined) {
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `Cannot write to "${text}": a digest names what exists; give a tag`,
      { reference: text },
    );
  }
  return new RegistryDestination(client, reference, signal, noteUpload);
}

function bare(text: string): string {
  return text.startsWith('docker://') ? text.slice('docker://'.length) : text;
}

/** A directory whose name ends like a tag (`dir:1`) needs a tag after it. */
function layoutOf(text: string): LayoutName | undefined {
  if (!text.startsWith('oci:')) return undefined;
  const rest = text.slice('oci:'.length);
  const colon = rest.lastIndexOf(':');
  const tag = colon === -1 ? undefined : rest.slice(colon + 1);
  const hasTag = tag !== undefined && isTag(tag);
  const directory = hasTag ? rest.slice(0, colon) : rest;
  if (directory === '') {
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `"${text}" names no directory: write it as oci:DIR or oci:DIR:tag`,
    );
  }
  return { directory, tag: hasTag ? tag : undefined };
}
