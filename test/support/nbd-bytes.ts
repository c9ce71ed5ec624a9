/** The client's side of the NBD protocol as bytes, and replies taken apart again. */

export const GREETING = Buffer.from(
  '4e42444d41474943 49484156454f5054 0003'.replaceAll(' ', ''),
  'hex',
);
export const CLIENT_FLAGS = Buffer.from('00000003', 'hex');

export function option(number: number, data: Uint8Array = new Uint8Array()): Buffer {
  const header = Buffer.alloc(16);
  header.write('IHAVEOPT');
  header.writeUInt32BE(number, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

/** A length and so many bytes. */
export function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** The data of INFO and GO. */
export function infoData(name: string, ...requests: number[]): Buffer {
  const tail = Buffer.alloc(2 + 2 * requests.length);
  tail.writeUInt16BE(requests.length);
  for (const [i, request] of requests.entries()) tail.writeUInt16BE(request, 2 + 2 * i);
  return Buffer.concat([text(name), tail]);
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextData(name: string, ...queries: string[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length);
  return Buffer.concat([text(name), count, ...queries.map(text)]);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export function parseOptionReplies(bytes: Buffer): OptionReply[] {
  const replies: OptionReply[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 20 + bytes.readUInt32BE(at + 16);
    if (bytes.readBigUInt64BE(at) !== 0x3e889045565a9n || end > bytes.length) {
      throw new RangeError(`no option reply at ${at}: ${bytes.subarray(at).toString('hex')}`);
    }
    const data = bytes.subarray(at + 20, end);
    replies.push({ option: bytes.readUInt32BE(at + 8), type: bytes.readUInt32BE(at + 12), data });
    at = end;
  }
  return replies;
}

export interface Request {
  readonly command: number;
  readonly cookie: number;
  readonly offset?: number;
  readonly length?: number;
  readonly flags?: number;
  readonly data?: Uint8Array;
}

export function request({ command, cookie, offset = 0, length, flags = 0, data }: Request): Buffer {
  const header = Buffer.alloc(28);
  header.writeUInt32BE(0x25609513, 0);
  header.writeUInt16BE(flags, 4);
  header.writeUInt16BE(command, 6);
  header.writeBigUInt64BE(BigInt(cookie), 8);
  header.writeBigUInt64BE(BigInt(offset), 16);
  header.writeUInt32BE(length ?? data?.length ?? 0, 24);
  return data === undefined ? header : Buffer.concat([header, data]);
}

export interface Reply {
  readonly cookie: number;
  readonly error: number;
  /** Data of a simple reply to a READ, or the payload of a chunk after the fields that precede the data. */
  readonly data: Buffer;
}

/** @param lengthOf - How many bytes follow a simple reply without an error, by its cookie. */
export function parseReplies(bytes: Buffer, lengthOf: (cookie: number) => number): Reply[] {
  const replies: Reply[] = [];
  for (let at = 0; at < bytes.length; ) {
    const cookie = Number(bytes.readBigUInt64BE(at + 8));
    if (bytes.readUInt32BE(at) === 0x67446698) {
      const error = bytes.readUInt32BE(at + 4);
      const end = at + 16 + (error === 0 ? lengthOf(cookie) : 0);
      replies.push({ cookie, error, data: bytes.subarray(at + 16, end) });
      at = end;
    } else if (bytes.readUInt32BE(at) === 0x668e33ef) {
      const end = at + 20 + bytes.readUInt32BE(at + 16);
      const failed = bytes.readUInt16BE(at + 6) === 0x8001;
      const skipped = bytes.readUInt16BE(at + 6) === 1 ? 8 : 4;
      const data = failed ? Buffer.alloc(0) : bytes.subarray(at + 20 + skipped, end);
      replies.push({ cookie, error: failed ? bytes.readUInt32BE(at + 20) : 0, data });
      at = end;
    } else {
      throw new RangeError(`no reply at ${at}: ${bytes.subarray(at, at + 32).toString('hex')}`);
    }
  }
  return replies;
}
