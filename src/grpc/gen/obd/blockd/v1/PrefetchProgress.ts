// Original file: proto/obd/blockd/v1/blockd.proto

import type { Long } from '@grpc/proto-loader';

export interface PrefetchProgress {
  'name'?: (string);
  'state'?: (string);
  'problem'?: (string);
  'totalBytes'?: (number | string | Long);
  'cachedBytes'?: (number | string | Long);
}

export interface PrefetchProgress__Output {
  'name': (string);
  'state': (string);
  'problem': (string);
  'totalBytes': (number);
  'cachedBytes': (number);
}
