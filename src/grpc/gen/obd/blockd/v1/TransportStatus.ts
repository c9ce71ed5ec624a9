// Original file: proto/obd/blockd/v1/blockd.proto


export interface TransportStatus {
  'name'?: (string);
  'missing'?: (string);
  'chosen'?: (boolean);
}

export interface TransportStatus__Output {
  'name': (string);
  'missing': (string);
  'chosen': (boolean);
}
