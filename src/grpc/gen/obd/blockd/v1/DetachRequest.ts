// Original file: proto/obd/blockd/v1/blockd.proto


export interface DetachRequest {
  'id'?: (string);
}

export interface DetachRequest__Output {
  'id': (string);
}
