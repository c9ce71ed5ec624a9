// Original file: proto/obd/blockd/v1/blockd.proto

import type { Long } from '@grpc/proto-loader';

export interface EndRecordingResponse {
  'order'?: (Buffer | Uint8Array | string);
  'pages'?: (number);
  'artifact'?: (string);
  'publishedStarts'?: (number);
  'publishedPages'?: (number);
  'hotBytes'?: (number | string | Long);
}

export interface EndRecordingResponse__Output {
  'order': (Buffer);
  'pages': (number);
  'artifact': (string);
  'publishedStarts': (number);
  'publishedPages': (number);
  'hotBytes': (number);
}
