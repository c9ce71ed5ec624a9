// Original file: proto/obd/blockd/v1/blockd.proto

import type { Device as _obd_blockd_v1_Device, Device__Output as _obd_blockd_v1_Device__Output } from '../../../obd/blockd/v1/Device.js';

export interface ListResponse {
  'devices'?: (_obd_blockd_v1_Device)[];
}

export interface ListResponse__Output {
  'devices': (_obd_blockd_v1_Device__Output)[];
}
