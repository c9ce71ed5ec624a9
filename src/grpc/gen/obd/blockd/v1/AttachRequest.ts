// Original file: proto/obd/blockd/v1/blockd.proto


export interface AttachRequest {
  'id'?: (string);
  'configPath'?: (string);
}

export interface AttachRequest__Output {
  'id': (string);
  'configPath': (string);
}
