// Original file: proto/obd/blockd/v1/blockd.proto


export interface EndReadsResponse {
}

export interface EndReadsResponse__Output {
}
