// Original file: proto/obd/blockd/v1/blockd.proto

import type { Long } from '@grpc/proto-loader';

export interface CachedBlob {
  'registry'?: (string);
  'digest'?: (string);
  'cachedBytes'?: (number | string | Long);
  'inUse'?: (boolean);
  'usedAtMs'?: (number | string | Long);
}

export interface CachedBlob__Output {
  'registry': (string);
  'digest': (string);
  'cachedBytes': (number);
  'inUse': (boolean);
  'usedAtMs': (number);
}
