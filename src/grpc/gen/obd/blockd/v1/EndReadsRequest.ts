// Original file: proto/obd/blockd/v1/blockd.proto


export interface EndReadsRequest {
  'id'?: (string);
}

export interface EndReadsRequest__Output {
  'id': (string);
}
