// Original file: proto/obd/blockd/v1/blockd.proto


export interface EndRecordingRequest {
  'key'?: (string);
  'publish'?: (boolean);
}

export interface EndRecordingRequest__Output {
  'key': (string);
  'publish': (boolean);
}
