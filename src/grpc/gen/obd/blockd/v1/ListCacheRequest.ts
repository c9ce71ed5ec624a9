// Original file: proto/obd/blockd/v1/blockd.proto


export interface ListCacheRequest {
}

export interface ListCacheRequest__Output {
}
