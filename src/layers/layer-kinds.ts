/** The kinds of layer that this build knows. LAYER_FORMATS in layer-formats.ts has the same rows, able to open them. */
import type { LayerKind } from './layer-kind.js';
import { OVERLAYBD, OVERLAYBD_TRACE, OVERLAYBD_TURBO } from './overlaybd-kinds.js';

/** In order of recognition: the special kinds come before the general one. */
export const LAYER_KINDS: readonly LayerKind[] = [OVERLAYBD_TRACE, OVERLAYBD_TURBO, OVERLAYBD];
