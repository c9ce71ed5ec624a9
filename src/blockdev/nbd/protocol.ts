/**
 * The numbers of the NBD protocol (NetworkBlockDevice's doc/proto.md) that this server says or understands.
 * Everything on the wire is big-endian; 64-bit magics are given as two halves, because nothing here uses BigInt.
 */

/** The options that a client and the server have agreed on for the transmission. */
export interface NegotiatedOptions {
  /** READs must be answered in structured form. */
  readonly structured: boolean;
  /** BLOCK_STATUS may be requested. */
  readonly allocation: boolean;
}

/** Largest READ. libnbd and qemu ask for no more by themselves. */
export const READ_BYTES_MAX = 32 << 20;

/** "NBDMAGIC" and "IHAVEOPT", with which a server greets; the second also starts every option. */
export const GREETING_MAGIC = [0x4e42444d, 0x41474943] as const;
export const OPTION_MAGIC = [0x49484156, 0x454f5054] as const;
export const OPTION_REPLY_MAGIC = [0x0003e889, 0x045565a9] as const;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

export const OPTION_HEADER_BYTES = 16;
export const OPTION_REPLY_HEADER_BYTES = 20;
export const REQUEST_BYTES = 28;
export const SIMPLE_HEADER_BYTES = 16;
export const CHUNK_HEADER_BYTES = 20;

/** The same two bits in what the server offers and the client takes. */
export const HandshakeFlags = { FixedNewstyle: 1, NoZeroes: 2 } as const;

export const Options = {
  ExportName: 1,
  Abort: 2,
  List: 3,
  Info: 6,
  Go: 7,
  StructuredReply: 8,
  ListMetaContext: 9,
  SetMetaContext: 10,
} as const;

export const OptionReplies = {
  Ack: 1,
  Server: 2,
  Info: 3,
  MetaContext: 4,
  Unsupported: 0x80000001,
  Invalid: 0x80000003,
  Unknown: 0x80000006,
  TooBig: 0x80000009,
} as const;

export const Infos = { Export: 0, BlockSize: 3 } as const;

/** Of an export. DontFragment is said only where structured replies were agreed on. */
export const TransmissionFlags = {
  HasFlags: 0x1,
  ReadOnly: 0x2,
  SendFlush: 0x4,
  SendFua: 0x8,
  SendTrim: 0x20,
  SendWriteZeroes: 0x40,
  SendDontFragment: 0x80,
  CanMultiConn: 0x100,
} as const;

export const Commands = {
  Read: 0,
  Write: 1,
  Disconnect: 2,
  Flush: 3,
  Trim: 4,
  WriteZeroes: 6,
  BlockStatus: 7,
} as const;

export const CommandFlags = {
  /** A write is on stable storage before it is answered. */
  Fua: 1,
  /** A write of zeroes keeps their room. */
  NoHole: 2,
  /** A block status request needs only one extent. */
  RequestOne: 8,
} as const;

export const CHUNK_FLAG_DONE = 1;
export const Chunks = { OffsetData: 1, BlockStatus: 5, Error: 0x8001 } as const;

export const NbdErrors = { NotPermitted: 1, Io: 5, Invalid: 22, NoSpace: 28 } as const;

/** The one metadata context there is, and its flags of an extent that reads as zeroes. */
export const ALLOCATION_CONTEXT = 'base:allocation';
export const ALLOCATION_CONTEXT_ID = 1;
export const EXTENT_HOLE_AND_ZERO = 3;
