// Original file: proto/obd/blockd/v1/blockd.proto


export interface DetachResponse {
}

export interface DetachResponse__Output {
}
