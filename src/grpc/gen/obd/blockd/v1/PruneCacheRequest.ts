// Original file: proto/obd/blockd/v1/blockd.proto


export interface PruneCacheRequest {
}

export interface PruneCacheRequest__Output {
}
