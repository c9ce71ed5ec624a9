// Original file: proto/obd/blockd/v1/blockd.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { AttachRequest as _obd_blockd_v1_AttachRequest, AttachRequest__Output as _obd_blockd_v1_AttachRequest__Output } from '../../../obd/blockd/v1/AttachRequest.js';
import type { DetachRequest as _obd_blockd_v1_DetachRequest, DetachRequest__Output as _obd_blockd_v1_DetachRequest__Output } from '../../../obd/blockd/v1/DetachRequest.js';
import type { DetachResponse as _obd_blockd_v1_DetachResponse, DetachResponse__Output as _obd_blockd_v1_DetachResponse__Output } from '../../../obd/blockd/v1/DetachResponse.js';
import type { Device as _obd_blockd_v1_Device, Device__Output as _obd_blockd_v1_Device__Output } from '../../../obd/blockd/v1/Device.js';
import type { EndReadsRequest as _obd_blockd_v1_EndReadsRequest, EndReadsRequest__Output as _obd_blockd_v1_EndReadsRequest__Output } from '../../../obd/blockd/v1/EndReadsRequest.js';
import type { EndReadsResponse as _obd_blockd_v1_EndReadsResponse, EndReadsResponse__Output as _obd_blockd_v1_EndReadsResponse__Output } from '../../../obd/blockd/v1/EndReadsResponse.js';
import type { EndRecordingRequest as _obd_blockd_v1_EndRecordingRequest, EndRecordingRequest__Output as _obd_blockd_v1_EndRecordingRequest__Output } from '../../../obd/blockd/v1/EndRecordingRequest.js';
import type { EndRecordingResponse as _obd_blockd_v1_EndRecordingResponse, EndRecordingResponse__Output as _obd_blockd_v1_EndRecordingResponse__Output } from '../../../obd/blockd/v1/EndRecordingResponse.js';
import type { ExpectRequest as _obd_blockd_v1_ExpectRequest, ExpectRequest__Output as _obd_blockd_v1_ExpectRequest__Output } from '../../../obd/blockd/v1/ExpectRequest.js';
import type { ExpectResponse as _obd_blockd_v1_ExpectResponse, ExpectResponse__Output as _obd_blockd_v1_ExpectResponse__Output } from '../../../obd/blockd/v1/ExpectResponse.js';
import type { ListCacheRequest as _obd_blockd_v1_ListCacheRequest, ListCacheRequest__Output as _obd_blockd_v1_ListCacheRequest__Output } from '../../../obd/blockd/v1/ListCacheRequest.js';
import type { ListCacheResponse as _obd_blockd_v1_ListCacheResponse, ListCacheResponse__Output as _obd_blockd_v1_ListCacheResponse__Output } from '../../../obd/blockd/v1/ListCacheResponse.js';
import type { ListRequest as _obd_blockd_v1_ListRequest, ListRequest__Output as _obd_blockd_v1_ListRequest__Output } from '../../../obd/blockd/v1/ListRequest.js';
import type { ListResponse as _obd_blockd_v1_ListResponse, ListResponse__Output as _obd_blockd_v1_ListResponse__Output } from '../../../obd/blockd/v1/ListResponse.js';
import type { PrefetchProgress as _obd_blockd_v1_PrefetchProgress, PrefetchProgress__Output as _obd_blockd_v1_PrefetchProgress__Output } from '../../../obd/blockd/v1/PrefetchProgress.js';
import type { PrefetchRequest as _obd_blockd_v1_PrefetchRequest, PrefetchRequest__Output as _obd_blockd_v1_PrefetchRequest__Output } from '../../../obd/blockd/v1/PrefetchRequest.js';
import type { ProbeRequest as _obd_blockd_v1_ProbeRequest, ProbeRequest__Output as _obd_blockd_v1_ProbeRequest__Output } from '../../../obd/blockd/v1/ProbeRequest.js';
import type { ProbeResponse as _obd_blockd_v1_ProbeResponse, ProbeResponse__Output as _obd_blockd_v1_ProbeResponse__Output } from '../../../obd/blockd/v1/ProbeResponse.js';
import type { PruneCacheRequest as _obd_blockd_v1_PruneCacheRequest, PruneCacheRequest__Output as _obd_blockd_v1_PruneCacheRequest__Output } from '../../../obd/blockd/v1/PruneCacheRequest.js';
import type { PruneCacheResponse as _obd_blockd_v1_PruneCacheResponse, PruneCacheResponse__Output as _obd_blockd_v1_PruneCacheResponse__Output } from '../../../obd/blockd/v1/PruneCacheResponse.js';
import type { RecordRequest as _obd_blockd_v1_RecordRequest, RecordRequest__Output as _obd_blockd_v1_RecordRequest__Output } from '../../../obd/blockd/v1/RecordRequest.js';
import type { RecordResponse as _obd_blockd_v1_RecordResponse, RecordResponse__Output as _obd_blockd_v1_RecordResponse__Output } from '../../../obd/blockd/v1/RecordResponse.js';
import type { VerifyCacheRequest as _obd_blockd_v1_VerifyCacheRequest, VerifyCacheRequest__Output as _obd_blockd_v1_VerifyCacheRequest__Output } from '../../../obd/blockd/v1/VerifyCacheRequest.js';
import type { VerifyCacheResponse as _obd_blockd_v1_VerifyCacheResponse, VerifyCacheResponse__Output as _obd_blockd_v1_VerifyCacheResponse__Output } from '../../../obd/blockd/v1/VerifyCacheResponse.js';

export interface BlockdClient extends grpc.Client {
  Attach(argument: _obd_blockd_v1_AttachRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_Device__Output>): grpc.ClientUnaryCall;
  Attach(argument: _obd_blockd_v1_AttachRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_Device__Output>): grpc.ClientUnaryCall;
  Attach(argument: _obd_blockd_v1_AttachRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_Device__Output>): grpc.ClientUnaryCall;
  Attach(argument: _obd_blockd_v1_AttachRequest, callback: grpc.requestCallback<_obd_blockd_v1_Device__Output>): grpc.ClientUnaryCall;
  attach(argument: _obd_blockd_v1_AttachRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_Device__Output>): grpc.ClientUnaryCall;
  attach(argument: _obd_blockd_v1_AttachRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_Device__Output>): grpc.ClientUnaryCall;
  attach(argument: _obd_blockd_v1_AttachRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_Device__Output>): grpc.ClientUnaryCall;
  attach(argument: _obd_blockd_v1_AttachRequest, callback: grpc.requestCallback<_obd_blockd_v1_Device__Output>): grpc.ClientUnaryCall;
  
  Detach(argument: _obd_blockd_v1_DetachRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_DetachResponse__Output>): grpc.ClientUnaryCall;
  Detach(argument: _obd_blockd_v1_DetachRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_DetachResponse__Output>): grpc.ClientUnaryCall;
  Detach(argument: _obd_blockd_v1_DetachRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_DetachResponse__Output>): grpc.ClientUnaryCall;
  Detach(argument: _obd_blockd_v1_DetachRequest, callback: grpc.requestCallback<_obd_blockd_v1_DetachResponse__Output>): grpc.ClientUnaryCall;
  detach(argument: _obd_blockd_v1_DetachRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_DetachResponse__Output>): grpc.ClientUnaryCall;
  detach(argument: _obd_blockd_v1_DetachRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_DetachResponse__Output>): grpc.ClientUnaryCall;
  detach(argument: _obd_blockd_v1_DetachRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_DetachResponse__Output>): grpc.ClientUnaryCall;
  detach(argument: _obd_blockd_v1_DetachRequest, callback: grpc.requestCallback<_obd_blockd_v1_DetachResponse__Output>): grpc.ClientUnaryCall;
  
  EndReads(argument: _obd_blockd_v1_EndReadsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_EndReadsResponse__Output>): grpc.ClientUnaryCall;
  EndReads(argument: _obd_blockd_v1_EndReadsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_EndReadsResponse__Output>): grpc.ClientUnaryCall;
  EndReads(argument: _obd_blockd_v1_EndReadsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_EndReadsResponse__Output>): grpc.ClientUnaryCall;
  EndReads(argument: _obd_blockd_v1_EndReadsRequest, callback: grpc.requestCallback<_obd_blockd_v1_EndReadsResponse__Output>): grpc.ClientUnaryCall;
  endReads(argument: _obd_blockd_v1_EndReadsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_EndReadsResponse__Output>): grpc.ClientUnaryCall;
  endReads(argument: _obd_blockd_v1_EndReadsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_EndReadsResponse__Output>): grpc.ClientUnaryCall;
  endReads(argument: _obd_blockd_v1_EndReadsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_EndReadsResponse__Output>): grpc.ClientUnaryCall;
  endReads(argument: _obd_blockd_v1_EndReadsRequest, callback: grpc.requestCallback<_obd_blockd_v1_EndReadsResponse__Output>): grpc.ClientUnaryCall;
  
  EndRecording(argument: _obd_blockd_v1_EndRecordingRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_EndRecordingResponse__Output>): grpc.ClientUnaryCall;
  EndRecording(argument: _obd_blockd_v1_EndRecordingRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_EndRecordingResponse__Output>): grpc.ClientUnaryCall;
  EndRecording(argument: _obd_blockd_v1_EndRecordingRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_EndRecordingResponse__Output>): grpc.ClientUnaryCall;
  EndRecording(argument: _obd_blockd_v1_EndRecordingRequest, callback: grpc.requestCallback<_obd_blockd_v1_EndRecordingResponse__Output>): grpc.ClientUnaryCall;
  endRecording(argument: _obd_blockd_v1_EndRecordingRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_EndRecordingResponse__Output>): grpc.ClientUnaryCall;
  endRecording(argument: _obd_blockd_v1_EndRecordingRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_EndRecordingResponse__Output>): grpc.ClientUnaryCall;
  endRecording(argument: _obd_blockd_v1_EndRecordingRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_EndRecordingResponse__Output>): grpc.ClientUnaryCall;
  endRecording(argument: _obd_blockd_v1_EndRecordingRequest, callback: grpc.requestCallback<_obd_blockd_v1_EndRecordingResponse__Output>): grpc.ClientUnaryCall;
  
  Expect(argument: _obd_blockd_v1_ExpectRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ExpectResponse__Output>): grpc.ClientUnaryCall;
  Expect(argument: _obd_blockd_v1_ExpectRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_ExpectResponse__Output>): grpc.ClientUnaryCall;
  Expect(argument: _obd_blockd_v1_ExpectRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ExpectResponse__Output>): grpc.ClientUnaryCall;
  Expect(argument: _obd_blockd_v1_ExpectRequest, callback: grpc.requestCallback<_obd_blockd_v1_ExpectResponse__Output>): grpc.ClientUnaryCall;
  expect(argument: _obd_blockd_v1_ExpectRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ExpectResponse__Output>): grpc.ClientUnaryCall;
  expect(argument: _obd_blockd_v1_ExpectRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_ExpectResponse__Output>): grpc.ClientUnaryCall;
  expect(argument: _obd_blockd_v1_ExpectRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ExpectResponse__Output>): grpc.ClientUnaryCall;
  expect(argument: _obd_blockd_v1_ExpectRequest, callback: grpc.requestCallback<_obd_blockd_v1_ExpectResponse__Output>): grpc.ClientUnaryCall;
  
  List(argument: _obd_blockd_v1_ListRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ListResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _obd_blockd_v1_ListRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_ListResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _obd_blockd_v1_ListRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ListResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _obd_blockd_v1_ListRequest, callback: grpc.requestCallback<_obd_blockd_v1_ListResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _obd_blockd_v1_ListRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ListResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _obd_blockd_v1_ListRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_ListResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _obd_blockd_v1_ListRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ListResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _obd_blockd_v1_ListRequest, callback: grpc.requestCallback<_obd_blockd_v1_ListResponse__Output>): grpc.ClientUnaryCall;
  
  ListCache(argument: _obd_blockd_v1_ListCacheRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ListCacheResponse__Output>): grpc.ClientUnaryCall;
  ListCache(argument: _obd_blockd_v1_ListCacheRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_ListCacheResponse__Output>): grpc.ClientUnaryCall;
  ListCache(argument: _obd_blockd_v1_ListCacheRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ListCacheResponse__Output>): grpc.ClientUnaryCall;
  ListCache(argument: _obd_blockd_v1_ListCacheRequest, callback: grpc.requestCallback<_obd_blockd_v1_ListCacheResponse__Output>): grpc.ClientUnaryCall;
  listCache(argument: _obd_blockd_v1_ListCacheRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ListCacheResponse__Output>): grpc.ClientUnaryCall;
  listCache(argument: _obd_blockd_v1_ListCacheRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_ListCacheResponse__Output>): grpc.ClientUnaryCall;
  listCache(argument: _obd_blockd_v1_ListCacheRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ListCacheResponse__Output>): grpc.ClientUnaryCall;
  listCache(argument: _obd_blockd_v1_ListCacheRequest, callback: grpc.requestCallback<_obd_blockd_v1_ListCacheResponse__Output>): grpc.ClientUnaryCall;
  
  Prefetch(argument: _obd_blockd_v1_PrefetchRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_PrefetchProgress__Output>): grpc.ClientUnaryCall;
  Prefetch(argument: _obd_blockd_v1_PrefetchRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_PrefetchProgress__Output>): grpc.ClientUnaryCall;
  Prefetch(argument: _obd_blockd_v1_PrefetchRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_PrefetchProgress__Output>): grpc.ClientUnaryCall;
  Prefetch(argument: _obd_blockd_v1_PrefetchRequest, callback: grpc.requestCallback<_obd_blockd_v1_PrefetchProgress__Output>): grpc.ClientUnaryCall;
  prefetch(argument: _obd_blockd_v1_PrefetchRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_PrefetchProgress__Output>): grpc.ClientUnaryCall;
  prefetch(argument: _obd_blockd_v1_PrefetchRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_PrefetchProgress__Output>): grpc.ClientUnaryCall;
  prefetch(argument: _obd_blockd_v1_PrefetchRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_PrefetchProgress__Output>): grpc.ClientUnaryCall;
  prefetch(argument: _obd_blockd_v1_PrefetchRequest, callback: grpc.requestCallback<_obd_blockd_v1_PrefetchProgress__Output>): grpc.ClientUnaryCall;
  
  Probe(argument: _obd_blockd_v1_ProbeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ProbeResponse__Output>): grpc.ClientUnaryCall;
  Probe(argument: _obd_blockd_v1_ProbeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_ProbeResponse__Output>): grpc.ClientUnaryCall;
  Probe(argument: _obd_blockd_v1_ProbeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ProbeResponse__Output>): grpc.ClientUnaryCall;
  Probe(argument: _obd_blockd_v1_ProbeRequest, callback: grpc.requestCallback<_obd_blockd_v1_ProbeResponse__Output>): grpc.ClientUnaryCall;
  probe(argument: _obd_blockd_v1_ProbeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ProbeResponse__Output>): grpc.ClientUnaryCall;
  probe(argument: _obd_blockd_v1_ProbeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_ProbeResponse__Output>): grpc.ClientUnaryCall;
  probe(argument: _obd_blockd_v1_ProbeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_ProbeResponse__Output>): grpc.ClientUnaryCall;
  probe(argument: _obd_blockd_v1_ProbeRequest, callback: grpc.requestCallback<_obd_blockd_v1_ProbeResponse__Output>): grpc.ClientUnaryCall;
  
  PruneCache(argument: _obd_blockd_v1_PruneCacheRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_PruneCacheResponse__Output>): grpc.ClientUnaryCall;
  PruneCache(argument: _obd_blockd_v1_PruneCacheRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_PruneCacheResponse__Output>): grpc.ClientUnaryCall;
  PruneCache(argument: _obd_blockd_v1_PruneCacheRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_PruneCacheResponse__Output>): grpc.ClientUnaryCall;
  PruneCache(argument: _obd_blockd_v1_PruneCacheRequest, callback: grpc.requestCallback<_obd_blockd_v1_PruneCacheResponse__Output>): grpc.ClientUnaryCall;
  pruneCache(argument: _obd_blockd_v1_PruneCacheRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_PruneCacheResponse__Output>): grpc.ClientUnaryCall;
  pruneCache(argument: _obd_blockd_v1_PruneCacheRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_PruneCacheResponse__Output>): grpc.ClientUnaryCall;
  pruneCache(argument: _obd_blockd_v1_PruneCacheRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_PruneCacheResponse__Output>): grpc.ClientUnaryCall;
  pruneCache(argument: _obd_blockd_v1_PruneCacheRequest, callback: grpc.requestCallback<_obd_blockd_v1_PruneCacheResponse__Output>): grpc.ClientUnaryCall;
  
  Record(argument: _obd_blockd_v1_RecordRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_RecordResponse__Output>): grpc.ClientUnaryCall;
  Record(argument: _obd_blockd_v1_RecordRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_RecordResponse__Output>): grpc.ClientUnaryCall;
  Record(argument: _obd_blockd_v1_RecordRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_RecordResponse__Output>): grpc.ClientUnaryCall;
  Record(argument: _obd_blockd_v1_RecordRequest, callback: grpc.requestCallback<_obd_blockd_v1_RecordResponse__Output>): grpc.ClientUnaryCall;
  record(argument: _obd_blockd_v1_RecordRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_RecordResponse__Output>): grpc.ClientUnaryCall;
  record(argument: _obd_blockd_v1_RecordRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_RecordResponse__Output>): grpc.ClientUnaryCall;
  record(argument: _obd_blockd_v1_RecordRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_RecordResponse__Output>): grpc.ClientUnaryCall;
  record(argument: _obd_blockd_v1_RecordRequest, callback: grpc.requestCallback<_obd_blockd_v1_RecordResponse__Output>): grpc.ClientUnaryCall;
  
  VerifyCache(argument: _obd_blockd_v1_VerifyCacheRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_VerifyCacheResponse__Output>): grpc.ClientUnaryCall;
  VerifyCache(argument: _obd_blockd_v1_VerifyCacheRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_VerifyCacheResponse__Output>): grpc.ClientUnaryCall;
  VerifyCache(argument: _obd_blockd_v1_VerifyCacheRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_VerifyCacheResponse__Output>): grpc.ClientUnaryCall;
  VerifyCache(argument: _obd_blockd_v1_VerifyCacheRequest, callback: grpc.requestCallback<_obd_blockd_v1_VerifyCacheResponse__Output>): grpc.ClientUnaryCall;
  verifyCache(argument: _obd_blockd_v1_VerifyCacheRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_VerifyCacheResponse__Output>): grpc.ClientUnaryCall;
  verifyCache(argument: _obd_blockd_v1_VerifyCacheRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_obd_blockd_v1_VerifyCacheResponse__Output>): grpc.ClientUnaryCall;
  verifyCache(argument: _obd_blockd_v1_VerifyCacheRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_obd_blockd_v1_VerifyCacheResponse__Output>): grpc.ClientUnaryCall;
  verifyCache(argument: _obd_blockd_v1_VerifyCacheRequest, callback: grpc.requestCallback<_obd_blockd_v1_VerifyCacheResponse__Output>): grpc.ClientUnaryCall;
  
}

export interface BlockdHandlers extends grpc.UntypedServiceImplementation {
  Attach: grpc.handleUnaryCall<_obd_blockd_v1_AttachRequest__Output, _obd_blockd_v1_Device>;
  
  Detach: grpc.handleUnaryCall<_obd_blockd_v1_DetachRequest__Output, _obd_blockd_v1_DetachResponse>;
  
  EndReads: grpc.handleUnaryCall<_obd_blockd_v1_EndReadsRequest__Output, _obd_blockd_v1_EndReadsResponse>;
  
  EndRecording: grpc.handleUnaryCall<_obd_blockd_v1_EndRecordingRequest__Output, _obd_blockd_v1_EndRecordingResponse>;
  
  Expect: grpc.handleUnaryCall<_obd_blockd_v1_ExpectRequest__Output, _obd_blockd_v1_ExpectResponse>;
  
  List: grpc.handleUnaryCall<_obd_blockd_v1_ListRequest__Output, _obd_blockd_v1_ListResponse>;
  
  ListCache: grpc.handleUnaryCall<_obd_blockd_v1_ListCacheRequest__Output, _obd_blockd_v1_ListCacheResponse>;
  
  Prefetch: grpc.handleUnaryCall<_obd_blockd_v1_PrefetchRequest__Output, _obd_blockd_v1_PrefetchProgress>;
  
  Probe: grpc.handleUnaryCall<_obd_blockd_v1_ProbeRequest__Output, _obd_blockd_v1_ProbeResponse>;
  
  PruneCache: grpc.handleUnaryCall<_obd_blockd_v1_PruneCacheRequest__Output, _obd_blockd_v1_PruneCacheResponse>;
  
  Record: grpc.handleUnaryCall<_obd_blockd_v1_RecordRequest__Output, _obd_blockd_v1_RecordResponse>;
  
  VerifyCache: grpc.handleUnaryCall<_obd_blockd_v1_VerifyCacheRequest__Output, _obd_blockd_v1_VerifyCacheResponse>;
  
}

export interface BlockdDefinition extends grpc.ServiceDefinition {
  Attach: MethodDefinition<_obd_blockd_v1_AttachRequest, _obd_blockd_v1_Device, _obd_blockd_v1_AttachRequest__Output, _obd_blockd_v1_Device__Output>
  Detach: MethodDefinition<_obd_blockd_v1_DetachRequest, _obd_blockd_v1_DetachResponse, _obd_blockd_v1_DetachRequest__Output, _obd_blockd_v1_DetachResponse__Output>
  EndReads: MethodDefinition<_obd_blockd_v1_EndReadsRequest, _obd_blockd_v1_EndReadsResponse, _obd_blockd_v1_EndReadsRequest__Output, _obd_blockd_v1_EndReadsResponse__Output>
  EndRecording: MethodDefinition<_obd_blockd_v1_EndRecordingRequest, _obd_blockd_v1_EndRecordingResponse, _obd_blockd_v1_EndRecordingRequest__Output, _obd_blockd_v1_EndRecordingResponse__Output>
  Expect: MethodDefinition<_obd_blockd_v1_ExpectRequest, _obd_blockd_v1_ExpectResponse, _obd_blockd_v1_ExpectRequest__Output, _obd_blockd_v1_ExpectResponse__Output>
  List: MethodDefinition<_obd_blockd_v1_ListRequest, _obd_blockd_v1_ListResponse, _obd_blockd_v1_ListRequest__Output, _obd_blockd_v1_ListResponse__Output>
  ListCache: MethodDefinition<_obd_blockd_v1_ListCacheRequest, _obd_blockd_v1_ListCacheResponse, _obd_blockd_v1_ListCacheRequest__Output, _obd_blockd_v1_ListCacheResponse__Output>
  Prefetch: MethodDefinition<_obd_blockd_v1_PrefetchRequest, _obd_blockd_v1_PrefetchProgress, _obd_blockd_v1_PrefetchRequest__Output, _obd_blockd_v1_PrefetchProgress__Output>
  Probe: MethodDefinition<_obd_blockd_v1_ProbeRequest, _obd_blockd_v1_ProbeResponse, _obd_blockd_v1_ProbeRequest__Output, _obd_blockd_v1_ProbeResponse__Output>
  PruneCache: MethodDefinition<_obd_blockd_v1_PruneCacheRequest, _obd_blockd_v1_PruneCacheResponse, _obd_blockd_v1_PruneCacheRequest__Output, _obd_blockd_v1_PruneCacheResponse__Output>
  Record: MethodDefinition<_obd_blockd_v1_RecordRequest, _obd_blockd_v1_RecordResponse, _obd_blockd_v1_RecordRequest__Output, _obd_blockd_v1_RecordResponse__Output>
  VerifyCache: MethodDefinition<_obd_blockd_v1_VerifyCacheRequest, _obd_blockd_v1_VerifyCacheResponse, _obd_blockd_v1_VerifyCacheRequest__Output, _obd_blockd_v1_VerifyCacheResponse__Output>
}
