// Original file: proto/obd/blockd/v1/blockd.proto

import type { Device as _obd_blockd_v1_Device, Device__Output as _obd_blockd_v1_Device__Output } from '../../../obd/blockd/v1/Device.js';
import type { TransportStatus as _obd_blockd_v1_TransportStatus, TransportStatus__Output as _obd_blockd_v1_TransportStatus__Output } from '../../../obd/blockd/v1/TransportStatus.js';
import type { PrefetchProgress as _obd_blockd_v1_PrefetchProgress, PrefetchProgress__Output as _obd_blockd_v1_PrefetchProgress__Output } from '../../../obd/blockd/v1/PrefetchProgress.js';

export interface ListResponse {
  'devices'?: (_obd_blockd_v1_Device)[];
  'transports'?: (_obd_blockd_v1_TransportStatus)[];
  'stateDir'?: (string);
  'prefetches'?: (_obd_blockd_v1_PrefetchProgress)[];
}

export interface ListResponse__Output {
  'devices': (_obd_blockd_v1_Device__Output)[];
  'transports': (_obd_blockd_v1_TransportStatus__Output)[];
  'stateDir': (string);
  'prefetches': (_obd_blockd_v1_PrefetchProgress__Output)[];
}
