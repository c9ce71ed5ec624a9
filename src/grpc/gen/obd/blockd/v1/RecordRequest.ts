// Original file: proto/obd/blockd/v1/blockd.proto

import type { ExpectRequest as _obd_blockd_v1_ExpectRequest, ExpectRequest__Output as _obd_blockd_v1_ExpectRequest__Output } from '../../../obd/blockd/v1/ExpectRequest.js';

export interface RecordRequest {
  'image'?: (_obd_blockd_v1_ExpectRequest | null);
  'untilQuiet'?: (boolean);
}

export interface RecordRequest__Output {
  'image': (_obd_blockd_v1_ExpectRequest__Output | null);
  'untilQuiet': (boolean);
}
