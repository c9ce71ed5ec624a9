// Original file: proto/obd/blockd/v1/blockd.proto

import type { CachedBlob as _obd_blockd_v1_CachedBlob, CachedBlob__Output as _obd_blockd_v1_CachedBlob__Output } from '../../../obd/blockd/v1/CachedBlob.js';
import type { Long } from '@grpc/proto-loader';

export interface ListCacheResponse {
  'blobs'?: (_obd_blockd_v1_CachedBlob)[];
  'capacityBytes'?: (number | string | Long);
  'diskFreeBytes'?: (number | string | Long);
}

export interface ListCacheResponse__Output {
  'blobs': (_obd_blockd_v1_CachedBlob__Output)[];
  'capacityBytes': (number);
  'diskFreeBytes': (number);
}
