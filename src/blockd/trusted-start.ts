/** Watches whether a start reads what is known of it, until it clearly does. */
import type { RequestKind, RequestObserver } from '../blockdev/request-observer.js';
import { PAGE_BYTES } from '../hot-blob/hot-pages.js';
import type { HotProgress } from '../hot-blob/hot-progress.js';

/**
 * 768 KiB. All commands of an image share libc and the file system's own blocks: a start that then reads other pages has been
 * seen to read 115 known ones before its first miss (docs/adr/0017).
 */
const PAGES_MIN = 192;
/** The share of known pages in all that are read. A start of known pages reads a few that are not: chance, and what the kernel reads around them. */
const KNOWN_SHARE_MIN = 0.75;

export class TrustedStart implements RequestObserver {
  readonly #progress: Pick<HotProgress, 'read'>;
  readonly #onTrusted: () => void;
  /** Other devices of the image may have read some. */
  readonly #readBefore: number;
  #bytes = 0;
  #isTrusted = false;

  /** @param onTrusted - Called once, while a read ends. */
  constructor(progress: Pick<HotProgress, 'read'>, onTrusted: () => void) {
    this.#progress = progress;
    this.#onTrusted = onTrusted;
    this.#readBefore = progress.read;
  }

  started(): void {}

  ended(
    kind: RequestKind,
    _offset: number,
    length: number,
    _durationMs: number,
    _servedFrom: unknown,
    error: unknown,
  ): void {
    if (this.#isTrusted || kind !== 'read' || error !== undefined) return;
    this.#bytes += length;
    const read = this.#progress.read - this.#readBefore;
    if (read < PAGES_MIN || read * PAGE_BYTES < KNOWN_SHARE_MIN * this.#bytes) return;
    this.#isTrusted = true;
    this.#onTrusted();
  }
}
