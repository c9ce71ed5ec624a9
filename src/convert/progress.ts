/** Interface through which a conversion reports its progress: enough for a bar, a log line or a test. */

export interface ConversionProgress {
  /** `platform` is undefined for an image that is not part of an index. */
  imageStarted(layers: number, sourceBytes: number, platform: string | undefined): void;
  /** Bytes of source blobs read since the last call. */
  bytesRead(bytes: number): void;
  /** A layer is converted and, unless the destination has it already, its blob is being sent. */
  layerConverted(number: number, blob: ConvertedBlob): void;
  /** Bytes of converted blobs sent since the last call. A retry reports its bytes again. */
  bytesSent(bytes: number): void;
  /** `number` counts from 1. `uploaded` is false where the destination had the blob already. */
  layerDone(number: number, blob: ConvertedBlob, uploaded: boolean): void;
  warning(message: string): void;
}

export interface ConvertedBlob {
  readonly sourceDigest: string;
  readonly sourceBytes: number;
  readonly digest: string;
  readonly sizeBytes: number;
}
