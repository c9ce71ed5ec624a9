// Original file: proto/obd/blockd/v1/blockd.proto

import type { Long } from '@grpc/proto-loader';

export interface BlobPart {
  'offset'?: (number | string | Long);
  'length'?: (number | string | Long);
  'digest'?: (string);
}

export interface BlobPart__Output {
  'offset': (number);
  'length': (number);
  'digest': (string);
}
