// Original file: proto/obd/blockd/v1/blockd.proto

import type { Long } from '@grpc/proto-loader';

export interface VerifyCacheResponse {
  'checkedBytes'?: (number | string | Long);
  'uncheckedBytes'?: (number | string | Long);
  'droppedBytes'?: (number | string | Long);
}

export interface VerifyCacheResponse__Output {
  'checkedBytes': (number);
  'uncheckedBytes': (number);
  'droppedBytes': (number);
}
