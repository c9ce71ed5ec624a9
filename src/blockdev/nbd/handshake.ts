/**
 * The first half of an NBD connection: the fixed newstyle handshake, in which the client picks an export.
 *
 *   greeting  ->  client flags  ->  option, reply, option, reply, ...  ->  GO or EXPORT_NAME: transmission
 *
 * Handshake takes and gives bytes; its caller owns the connection. However the bytes are cut, the answers are the same.
 *
 * The cost of a client is limited: one option of at most {@link OPTION_BYTES_MAX} is held at a time, and longer ones
 * are read past and refused. An option that is not understood is refused and the negotiation continues, as the
 * protocol requires, until the caller's time limit ends the connection.
 */
import {
  ALLOCATION_CONTEXT,
  ALLOCATION_CONTEXT_ID,
  GREETING_MAGIC,
  HandshakeFlags,
  Infos,
  type NegotiatedOptions,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC,
  OPTION_REPLY_HEADER_BYTES,
  OPTION_REPLY_MAGIC,
  OptionReplies,
  Options,
  READ_BYTES_MAX,
  TransmissionFlags,
} from './protocol.js';

/** Room for one name of the 4096 bytes the protocol allows and some queries. */
const OPTION_BYTES_MAX = 16 * 1024;
const BLOCK_BYTES_PREFERRED = 4096;
const CLIENT_FLAGS_BYTES = 4;
/** After the size and the flags in the reply to EXPORT_NAME, unless both agreed to leave them out. */
const PADDING_BYTES = 124;

/** The exports that clients can choose from. */
export interface Exports<E extends Exported> {
  get(name: string): E | undefined;
  keys(): Iterable<string>;
}

/** The properties of a disk that a client is told. */
export interface Exported {
  readonly sizeBytes: number;
  /** As transmissionFlags() has them. */
  readonly flags: number;
}

interface Agreement<E> extends NegotiatedOptions {
  readonly chosen: E;
}

/** How far it is: more bytes are needed, or the connection ends, or the transmission begins. */
export type Progress<E> =
  | 'more'
  | 'end'
  | { readonly agreement: Agreement<E>; readonly rest: Buffer };

export class Handshake<E extends Exported> {
  readonly #exports: Exports<E>;
  readonly #send: (bytes: Buffer) => void;
  #pending: Buffer = Buffer.alloc(0);
  /** Bytes of a refused option still to be read past. */
  #skipBytes = 0;
  #clientFlags: number | undefined;
  #structured = false;
  /** The export for which base:allocation was set. */
  #allocationOf: string | undefined;

  /** Sends the greeting. */
  constructor(exports: Exports<E>, send: (bytes: Buffer) => void) {
    this.#exports = exports;
    this.#send = send;
    const greeting = Buffer.alloc(18);
    greeting.writeUInt32BE(GREETING_MAGIC[0], 0);
    greeting.writeUInt32BE(GREETING_MAGIC[1], 4);
    greeting.writeUInt32BE(OPTION_MAGIC[0], 8);
    greeting.writeUInt32BE(OPTION_MAGIC[1], 12);
    greeting.writeUInt16BE(HandshakeFlags.FixedNewstyle | HandshakeFlags.NoZeroes, 16);
    send(greeting);
  }

  /** Takes the next bytes from the client, and answers every option they complete. */
  push(bytes: Buffer): Progress<E> {
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    for (;;) {
      const skipped = Math.min(this.#skipBytes, this.#pending.length);
      this.#skipBytes -= skipped;
      this.#pending = this.#pending.subarray(skipped);
      const progress = this.#clientFlags === undefined ? this.#takeFlags() : this.#takeOption();
      if (progress !== undefined) return progress;
    }
  }

  /** Takes one piece off the pending bytes; undefined if there may be another one. */
  #takeFlags(): Progress<E> | undefined {
    const bytes = this.#pending;
    if (bytes.length < CLIENT_FLAGS_BYTES) return 'more';
    const flags = bytes.readUInt32BE(0);
    if ((flags & ~(HandshakeFlags.FixedNewstyle | HandshakeFlags.NoZeroes)) !== 0) return 'end';
    this.#clientFlags = flags;
    this.#pending = bytes.subarray(CLIENT_FLAGS_BYTES);
    return undefined;
  }

  #takeOption(): Progress<E> | undefined {
    const bytes = this.#pending;
    if (bytes.length < OPTION_HEADER_BYTES) return 'more';
    if (bytes.readUInt32BE(0) !== OPTION_MAGIC[0]) return 'end';
    if (bytes.readUInt32BE(4) !== OPTION_MAGIC[1]) return 'end';
    const option = bytes.readUInt32BE(8);
    const length = bytes.readUInt32BE(12);
    if (length > OPTION_BYTES_MAX) {
      if (option === Options.ExportName) return 'end';
      this.#refuse(option, OptionReplies.TooBig, `an option has at most ${OPTION_BYTES_MAX} bytes`);
      this.#skipBytes = length;
      this.#pending = bytes.subarray(OPTION_HEADER_BYTES);
      return undefined;
    }
    const end = OPTION_HEADER_BYTES + length;
    if (bytes.length < end) return 'more';
    this.#pending = bytes.subarray(end);
    return this.#answer(option, bytes.subarray(OPTION_HEADER_BYTES, end));
  }

  #answer(option: number, data: Buffer): Progress<E> | undefined {
    switch (option) {
      case Options.ExportName:
        return this.#enter(data);
      case Options.Abort:
        this.#reply(option, OptionReplies.Ack);
        return 'end';
      case Options.List:
        return this.#list(option, data);
      case Options.Info:
      case Options.Go:
        return this.#describe(option, data);
      case Options.StructuredReply:
        if (data.length > 0)
          return this.#refuse(option, OptionReplies.Invalid, 'no data belong here');
        this.#structured = true;
        return this.#reply(option, OptionReplies.Ack);
      case Options.ListMetaContext:
      case Options.SetMetaContext:
        return this.#metaContexts(option, data);
      default:
        return this.#refuse(
          option,
          OptionReplies.Unsupported,
          'this server does not know the option',
        );
    }
  }

  #list(option: number, data: Buffer): undefined {
    if (data.length > 0) return this.#refuse(option, OptionReplies.Invalid, 'no data belong here');
    for (const name of this.#exports.keys()) {
      const text = Buffer.from(name);
      const payload = Buffer.alloc(4 + text.length);
      payload.writeUInt32BE(text.length, 0);
      text.copy(payload, 4);
      this.#reply(option, OptionReplies.Server, payload);
    }
    return this.#reply(option, OptionReplies.Ack);
  }

  /** EXPORT_NAME, which has no form for a refusal but hanging up. */
  #enter(data: Buffer): Progress<E> {
    const name = data.toString();
    const chosen = this.#exports.get(name);
    if (chosen === undefined) return 'end';
    const padded = ((this.#clientFlags ?? 0) & HandshakeFlags.NoZeroes) === 0;
    const reply = Buffer.alloc(10 + (padded ? PADDING_BYTES : 0));
    this.#writeSizeAndFlags(reply, 0, chosen);
    this.#send(reply);
    return this.#begin(name, chosen);
  }

  /** INFO and GO: u32 and name, u16 and as many requests of two bytes. */
  #describe(option: number, data: Buffer): Progress<E> | undefined {
    const nameEnd = data.length < 6 ? Number.POSITIVE_INFINITY : 4 + data.readUInt32BE(0);
    if (nameEnd + 2 > data.length || nameEnd + 2 + 2 * data.readUInt16BE(nameEnd) !== data.length) {
      return this.#refuse(option, OptionReplies.Invalid, 'lengths that do not add up');
    }
    const name = data.toString('utf8', 4, nameEnd);
    const chosen = this.#exports.get(name);
    if (chosen === undefined) {
      return this.#refuse(option, OptionReplies.Unknown, 'there is no export of this name');
    }
    const size = Buffer.alloc(12);
    size.writeUInt16BE(Infos.Export, 0);
    this.#writeSizeAndFlags(size, 2, chosen);
    this.#reply(option, OptionReplies.Info, size);
    for (let at = nameEnd + 2; at < data.length; at += 2) {
      if (data.readUInt16BE(at) !== Infos.BlockSize) continue;
      const sizes = Buffer.alloc(14);
      sizes.writeUInt16BE(Infos.BlockSize, 0);
      sizes.writeUInt32BE(1, 2);
      sizes.writeUInt32BE(BLOCK_BYTES_PREFERRED, 6);
      sizes.writeUInt32BE(READ_BYTES_MAX, 10);
      this.#reply(option, OptionReplies.Info, sizes);
      break;
    }
    this.#reply(option, OptionReplies.Ack);
    return option === Options.Go ? this.#begin(name, chosen) : undefined;
  }

  /** u32 and export name, u32 count, and for each a u32 and a query. */
  #metaContexts(option: number, data: Buffer): undefined {
    const parsed = parseQueries(data);
    if (parsed === undefined) {
      return this.#refuse(option, OptionReplies.Invalid, 'lengths that do not add up');
    }
    const { name, queries } = parsed;
    const setting = option === Options.SetMetaContext;
    if (setting) this.#allocationOf = undefined;
    if (!this.#structured) {
      return this.#refuse(option, OptionReplies.Invalid, 'structured replies have to come first');
    }
    if (this.#exports.get(name) === undefined) {
      return this.#refuse(option, OptionReplies.Unknown, 'there is no export of this name');
    }
    const all = !setting && (queries.length === 0 || queries.includes('base:'));
    if (all || queries.includes(ALLOCATION_CONTEXT)) {
      const context = Buffer.alloc(4 + ALLOCATION_CONTEXT.length);
      if (setting) {
        this.#allocationOf = name;
        context.writeUInt32BE(ALLOCATION_CONTEXT_ID, 0);
      }
      context.write(ALLOCATION_CONTEXT, 4);
      this.#reply(option, OptionReplies.MetaContext, context);
    }
    return this.#reply(option, OptionReplies.Ack);
  }

  #begin(name: string, chosen: E): Progress<E> {
    const allocation = this.#allocationOf === name;
    return { agreement: { chosen, structured: this.#structured, allocation }, rest: this.#pending };
  }

  #writeSizeAndFlags(target: Buffer, at: number, { sizeBytes, flags }: E): void {
    const dontFragment = this.#structured ? TransmissionFlags.SendDontFragment : 0;
    target.writeUInt32BE(Math.floor(sizeBytes / 2 ** 32), at);
    target.writeUInt32BE(sizeBytes % 2 ** 32, at + 4);
    target.writeUInt16BE(flags | dontFragment, at + 8);
  }

  #refuse(option: number, type: number, text: string): undefined {
    return this.#reply(option, type, Buffer.from(text));
  }

  #reply(option: number, type: number, payload: Buffer = Buffer.alloc(0)): undefined {
    const reply = Buffer.alloc(OPTION_REPLY_HEADER_BYTES + payload.length);
    reply.writeUInt32BE(OPTION_REPLY_MAGIC[0], 0);
    reply.writeUInt32BE(OPTION_REPLY_MAGIC[1], 4);
    reply.writeUInt32BE(option, 8);
    reply.writeUInt32BE(type, 12);
    reply.writeUInt32BE(payload.length, 16);
    payload.copy(reply, OPTION_REPLY_HEADER_BYTES);
    this.#send(reply);
    return undefined;
  }
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT, or undefined if their lengths do not add up. */
function parseQueries(data: Buffer): { name: string; queries: string[] } | undefined {
  let at = 0;
  const text = (): string | undefined => {
    if (at + 4 > data.length) return undefined;
    const start = at + 4;
    const end = start + data.readUInt32BE(at);
    if (end > data.length) return undefined;
    at = end;
    return data.toString('utf8', start, end);
  };
  const name = text();
  if (name === undefined || at + 4 > data.length) return undefined;
  const count = data.readUInt32BE(at);
  at += 4;
  const queries: string[] = [];
  for (let i = 0; i < count; i++) {
    const query = text();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return at === data.length ? { name, queries } : undefined;
}
