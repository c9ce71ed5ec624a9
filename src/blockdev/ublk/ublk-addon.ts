/** The add-on native/ublk, typed; its source documents each call. */
import { loadNativeAddon } from '../../io/native-addon.js';

export interface NativeControl {
  submit(token: number, operation: number, command: Uint8Array, payload: Uint8Array): void;
}

export interface NativeQueue {
  readonly memory: ArrayBuffer;
  /** Four for each request: tag, op and flags, sectors, first sector. */
  readonly ready: Float64Array;
  /** Two for each answer: tag, and bytes or -errno. */
  readonly answers: Int32Array;
  commit(count: number): void;
  leave(): void;
  resume(): void;
  close(): void;
}

interface Addon {
  Control: new (path: string, onDone: (token: number, result: number) => void) => NativeControl;
  Queue: new (
    path: string,
    depth: number,
    ioBytesMax: number,
    onReady: (count: number) => void,
    onStopped: () => void,
  ) => NativeQueue;
}

export const ublkAddon = loadNativeAddon('ublk', 'ublk') as Addon;
