// Original file: proto/obd/blockd/v1/blockd.proto


export interface RecordResponse {
  'key'?: (string);
}

export interface RecordResponse__Output {
  'key': (string);
}
