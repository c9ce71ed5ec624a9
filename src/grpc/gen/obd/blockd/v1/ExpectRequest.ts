// Original file: proto/obd/blockd/v1/blockd.proto

import type { ExpectedLayer as _obd_blockd_v1_ExpectedLayer, ExpectedLayer__Output as _obd_blockd_v1_ExpectedLayer__Output } from '../../../obd/blockd/v1/ExpectedLayer.js';
import type { Long } from '@grpc/proto-loader';

export interface ExpectRequest {
  'host'?: (string);
  'repository'?: (string);
  'manifest'?: (string);
  'manifestBytes'?: (number | string | Long);
  'manifestType'?: (string);
  'loadOrder'?: (string);
  'orderNames'?: (string)[];
  'layers'?: (_obd_blockd_v1_ExpectedLayer)[];
  'command'?: (string);
  'imageCommand'?: (string);
}

export interface ExpectRequest__Output {
  'host': (string);
  'repository': (string);
  'manifest': (string);
  'manifestBytes': (number);
  'manifestType': (string);
  'loadOrder': (string);
  'orderNames': (string)[];
  'layers': (_obd_blockd_v1_ExpectedLayer__Output)[];
  'command': (string);
  'imageCommand': (string);
}
