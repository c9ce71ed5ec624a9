// Original file: proto/obd/blockd/v1/blockd.proto

import type { BlobAddress as _obd_blockd_v1_BlobAddress, BlobAddress__Output as _obd_blockd_v1_BlobAddress__Output } from '../../../obd/blockd/v1/BlobAddress.js';

export interface PrefetchRequest {
  'name'?: (string);
  'blobs'?: (_obd_blockd_v1_BlobAddress)[];
}

export interface PrefetchRequest__Output {
  'name': (string);
  'blobs': (_obd_blockd_v1_BlobAddress__Output)[];
}
