// Original file: proto/obd/blockd/v1/blockd.proto


export interface ListRequest {
}

export interface ListRequest__Output {
}
