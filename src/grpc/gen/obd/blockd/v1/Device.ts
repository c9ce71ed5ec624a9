// Original file: proto/obd/blockd/v1/blockd.proto

import type { Long } from '@grpc/proto-loader';

export interface Device {
  'id'?: (string);
  'configPath'?: (string);
  'path'?: (string);
  'transport'?: (string);
  'sizeBytes'?: (number | string | Long);
  'layers'?: (number);
  'remoteBytes'?: (number | string | Long);
  'cachedBytes'?: (number | string | Long);
  'fetchedBytes'?: (number | string | Long);
  'fetchRequests'?: (number | string | Long);
  'readErrors'?: (number | string | Long);
  'nbdUri'?: (string);
  'state'?: (string);
  'problem'?: (string);
  'waitingReads'?: (number);
  'waitingMs'?: (number | string | Long);
  'waitingReason'?: (string);
  'fillState'?: (string);
  'fillProblem'?: (string);
  'remoteLayers'?: (number);
  'provedLayers'?: (number);
  'hotPages'?: (number);
  'hotPagesRead'?: (number);
}

export interface Device__Output {
  'id': (string);
  'configPath': (string);
  'path': (string);
  'transport': (string);
  'sizeBytes': (number);
  'layers': (number);
  'remoteBytes': (number);
  'cachedBytes': (number);
  'fetchedBytes': (number);
  'fetchRequests': (number);
  'readErrors': (number);
  'nbdUri': (string);
  'state': (string);
  'problem': (string);
  'waitingReads': (number);
  'waitingMs': (number);
  'waitingReason': (string);
  'fillState': (string);
  'fillProblem': (string);
  'remoteLayers': (number);
  'provedLayers': (number);
  'hotPages': (number);
  'hotPagesRead': (number);
}
