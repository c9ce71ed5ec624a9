// Original file: proto/obd/blockd/v1/blockd.proto

import type { BlobAddress as _obd_blockd_v1_BlobAddress, BlobAddress__Output as _obd_blockd_v1_BlobAddress__Output } from '../../../obd/blockd/v1/BlobAddress.js';
import type { BlobPart as _obd_blockd_v1_BlobPart, BlobPart__Output as _obd_blockd_v1_BlobPart__Output } from '../../../obd/blockd/v1/BlobPart.js';

export interface ProbeRequest {
  'blob'?: (_obd_blockd_v1_BlobAddress | null);
  'parts'?: (_obd_blockd_v1_BlobPart)[];
}

export interface ProbeRequest__Output {
  'blob': (_obd_blockd_v1_BlobAddress__Output | null);
  'parts': (_obd_blockd_v1_BlobPart__Output)[];
}
