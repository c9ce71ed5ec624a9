/**
 * Annotations of layer descriptors of an overlaybd image. containerd passes every annotation that begins with
 * `containerd.io/snapshot/` to the snapshotter as a label.
 */

/** The prefix of overlaybd's own annotations, which mark such a layer. */
export const OVERLAYBD_PREFIX = 'containerd.io/snapshot/overlaybd/';

export const VERSION_ANNOTATION = `${OVERLAYBD_PREFIX}version`;
/** Digest of the blob: the descriptor's own. */
export const BLOB_DIGEST_ANNOTATION = `${OVERLAYBD_PREFIX}blob-digest`;
/** Size of the blob in bytes, in decimal: the descriptor's own. */
export const BLOB_SIZE_ANNOTATION = `${OVERLAYBD_PREFIX}blob-size`;
/** `ext4`; some tools write `type;mountopts;mkfsopts`. */
export const BLOB_FS_TYPE_ANNOTATION = `${OVERLAYBD_PREFIX}blob-fs-type`;
/** `yes` on a layer that holds an access trace instead of blocks. */
export const ACCELERATION_LAYER_ANNOTATION = `${OVERLAYBD_PREFIX}acceleration-layer`;
/**
 * How many bytes of the blob, from its start, hold the file system's metadata, in decimal. Written by obdconv alone: other
 * tools store metadata between the files, and ignore it.
 */
export const METADATA_BYTES_ANNOTATION = 'containerd.io/snapshot/obd-ts.metadata-bytes';
/**
 * The layer's hash tree: `ROOT@OFFSET`, the root as `sha256:...` and the byte of the blob where the tree begins, in decimal.
 * Written by obdconv alone (docs/formats/hash-tree.md).
 */
export const HASH_TREE_ANNOTATION = 'containerd.io/snapshot/obd-ts.hash-tree';

/** TurboOCI: the digest of the original layer, which has the contents of the files. */
export const TURBO_TARGET_ANNOTATIONS: readonly string[] = [
  `${OVERLAYBD_PREFIX}turbo-oci/target-digest`,
  `${OVERLAYBD_PREFIX}fastoci/target-digest`,
];
/** The formats of TurboOCI layers, which were called FastOCI before. */
export const TURBO_VERSIONS: readonly string[] = ['0.1.0-turbo.ociv1', '0.1.0-fastoci'];
/** The format of a layer whose blob holds all its blocks. */
export const NATIVE_VERSION = '0.1.0';
