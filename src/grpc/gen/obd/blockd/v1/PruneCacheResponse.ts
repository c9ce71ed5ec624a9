// Original file: proto/obd/blockd/v1/blockd.proto

import type { Long } from '@grpc/proto-loader';

export interface PruneCacheResponse {
  'blobs'?: (number);
  'freedBytes'?: (number | string | Long);
}

export interface PruneCacheResponse__Output {
  'blobs': (number);
  'freedBytes': (number);
}
