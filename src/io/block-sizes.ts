/** Sizes that several rooms share, in bytes. Each is named after the thing that has this size. */

/** Linux's unit for sizes and offsets of all block devices, also those with larger blocks. LSMT counts in it, too. */
export const SECTOR_BYTES = 512;

/**
 * Logical block of the devices that transports make, the smallest read. The kernel mounts no file system with smaller blocks
 * than that, and images may have blocks of 1 KiB.
 */
export const DEVICE_BLOCK_BYTES = 512;

/** Headers and content of a tar archive are padded to it (POSIX pax, "ustar Interchange Format"). */
export const TAR_BLOCK_BYTES = 512;

/** Block of the ext4 file systems that this project makes and changes, as mke2fs makes them by default. */
export const EXT4_BLOCK_BYTES = 4096;
