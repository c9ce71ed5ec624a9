// Original file: proto/obd/blockd/v1/blockd.proto


export interface ExpectResponse {
}

export interface ExpectResponse__Output {
}
