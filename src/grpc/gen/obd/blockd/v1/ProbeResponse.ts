// Original file: proto/obd/blockd/v1/blockd.proto


export interface ProbeResponse {
}

export interface ProbeResponse__Output {
}
