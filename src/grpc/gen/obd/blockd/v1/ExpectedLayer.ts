// Original file: proto/obd/blockd/v1/blockd.proto

import type { Long } from '@grpc/proto-loader';

export interface ExpectedLayer {
  'digest'?: (string);
  'sizeBytes'?: (number | string | Long);
  'root'?: (string);
}

export interface ExpectedLayer__Output {
  'digest': (string);
  'sizeBytes': (number);
  'root': (string);
}
