/**
 * Annotations of layer descriptors that mark an overlaybd image. containerd passes every annotation that begins with
 * `containerd.io/snapshot/` to the snapshotter as a label.
 */

const PREFIX = 'containerd.io/snapshot/overlaybd/';

export const VERSION_ANNOTATION = `${PREFIX}version`;
/** Digest of the blob: the descriptor's own. */
export const BLOB_DIGEST_ANNOTATION = `${PREFIX}blob-digest`;
/** Size of the blob in bytes, in decimal: the descriptor's own. */
export const BLOB_SIZE_ANNOTATION = `${PREFIX}blob-size`;
/** `ext4`; some tools write `type;mountopts;mkfsopts`. */
export const BLOB_FS_TYPE_ANNOTATION = `${PREFIX}blob-fs-type`;
/** `yes` on a layer that holds an access trace instead of blocks. */
export const ACCELERATION_LAYER_ANNOTATION = `${PREFIX}acceleration-layer`;

/** The format of a layer whose blob holds all its blocks. */
export const NATIVE_VERSION = '0.1.0';
