/**
 * Detects a thread that neither answers nor ends: it loops, or its system call does not return, for example because a
 * layer's file is on a file system that hangs. Its devices would wait forever without a log line.
 *
 * Silence is counted in beats, not by the clock: a process that was stopped as a whole, or a machine that slept, finds
 * one beat missed, however long it was.
 */

/** A minute of the pool's beats: a loaded machine delays a thread far less. */
const MISSED_MAX = 12;

export class Heartbeat {
  readonly #timer: NodeJS.Timeout;
  #missed = 0;
  #isWaiting = false;

  /**
   * @param beat - Resolves when the thread has answered; it may reject when the thread has ended.
   * @param beatMs - Between two beats.
   * @param onSilence - Called once, with the reason.
   */
  constructor(beat: () => Promise<void>, beatMs: number, onSilence: (why: Error) => void) {
    this.#timer = setInterval(() => {
      if (!this.#isWaiting) {
        this.#isWaiting = true;
        const answered = () => {
          this.#isWaiting = false;
          this.#missed = 0;
        };
        beat().then(answered, () => this.stop());
      } else if (++this.#missed === MISSED_MAX) {
        this.stop();
        onSilence(new Error(`a thread has not answered for ${(MISSED_MAX * beatMs) / 1000} s`));
      }
    }, beatMs);
    this.#timer.unref();
  }

  /** Idempotent. */
  stop(): void {
    clearInterval(this.#timer);
  }
}
