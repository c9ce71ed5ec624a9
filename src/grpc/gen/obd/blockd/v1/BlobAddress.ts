// Original file: proto/obd/blockd/v1/blockd.proto

import type { Long } from '@grpc/proto-loader';

export interface BlobAddress {
  'host'?: (string);
  'repository'?: (string);
  'digest'?: (string);
  'sizeBytes'?: (number | string | Long);
}

export interface BlobAddress__Output {
  'host': (string);
  'repository': (string);
  'digest': (string);
  'sizeBytes': (number);
}
