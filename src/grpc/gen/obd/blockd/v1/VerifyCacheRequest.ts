// Original file: proto/obd/blockd/v1/blockd.proto


export interface VerifyCacheRequest {
  'registry'?: (string);
  'digest'?: (string);
}

export interface VerifyCacheRequest__Output {
  'registry': (string);
  'digest': (string);
}
