/**
 * Takes the place of Intl.Segmenter in dist/bin. yargs' dependencies make three when they are loaded, and the first one takes
 * 15 to 30 ms, while only help texts need one.
 */
export class LateSegmenter {
  /** @type {Intl.Segmenter | undefined} */
  #segmenter;

  /** @param {unknown[]} options - None: all segmenters are alike. */
  constructor(...options) {
    if (options.length > 0) throw new TypeError('a segmenter with options');
  }

  /** @param {string} text */
  segment(text) {
    this.#segmenter ??= new globalThis.Intl['Segmenter']();
    return this.#segmenter.segment(text);
  }
}
