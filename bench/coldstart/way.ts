/** A way to start an image: which daemons it takes, which form of the image, and how it pulls. */
import type { Variant } from './image-store.js';
import type { Programs } from './peer-programs.js';
import type { Services } from './services.js';

export interface Way {
  readonly name: string;
  readonly title: string;
  readonly kind: 'ours' | 'full pull' | 'peer';
  /** Undefined for the plain image. */
  readonly variant: Variant | undefined;
  readonly snapshotter: string;
  /** Runs only if `--ways` names it. */
  readonly onDemand?: boolean;
  /** The images that it runs; undefined for all. */
  readonly images?: readonly string[];
  /** Of those, the ones that it runs in a quick run; undefined for all. */
  readonly quickImages?: readonly string[];
  /** Why it cannot run here; undefined if it can. */
  readonly missing: (programs: Programs) => string | undefined;
  /**
   * How many earlier starts on other nodes publish what they have read. Their artifacts are in the registry for such ways only.
   */
  readonly publishers?: number;
  /** Those starts read other files than the measured one. */
  readonly isMisled?: boolean;
  /** The registry shows their load order without its hot blob. */
  readonly isOrderAlone?: boolean;
  /** The folder of its state that has what the measured start read, once its image is removed. A prediction is judged by it. */
  readonly judgedBy?: string;
  /** A folder of its state that an earlier start fills, and the measured start begins with. */
  readonly keeps?: string;
  /** Starts its daemons, containerd included. */
  readonly start: (services: Services) => Promise<void>;
  readonly pull: (services: Services, reference: string) => string[];
}
