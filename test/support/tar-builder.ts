/**
 * Builds tar archives in memory, sound ones and deliberately odd ones, for tests.
 *
 * Written from the format, not from our reader: ustar headers with pax records in front wherever a value
 * does not fit or the test asks for them. `raw` fields let a test damage exactly one thing.
 */

const BLOCK = 512;

export interface TarMember {
  readonly name: string | Uint8Array;
  /** One character; `0` if left out. */
  readonly type?: string;
  readonly content?: Uint8Array | string;
  readonly linkName?: string | Uint8Array;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Whole seconds; use `pax` for more. */
  readonly mtime?: number;
  readonly major?: number;
  readonly minor?: number;
  /** Records of a pax header in front, in order; values as bytes. */
  readonly pax?: ReadonlyArray<readonly [key: string, value: string | Uint8Array]>;
  readonly xattrs?: Readonly<Record<string, string | Uint8Array>>;
  /** Size field, where it is to differ from the content's length. */
  readonly size?: number;
  /** Changes the finished header, before its checksum is computed. */
  readonly patch?: (header: Buffer) => void;
}

/** A whole archive, end marker included. */
export function tarOf(members: readonly TarMember[]): Buffer {
  return Buffer.concat([...members.map(memberBytes), Buffer.alloc(2 * BLOCK)]);
}

export function memberBytes(member: TarMember): Buffer {
  const name = bytesOf(member.name);
  const link = bytesOf(member.linkName ?? '');
  const records: Array<readonly [string, string | Uint8Array]> = [...(member.pax ?? [])];
  for (const [key, value] of Object.entries(member.xattrs ?? {})) {
    records.push([`SCHILY.xattr.${key}`, value]);
  }
  if (name.length > 100) records.push(['path', name]);
  if (link.length > 100) records.push(['linkpath', link]);
  if ((member.uid ?? 0) > 0o7777777) records.push(['uid', String(member.uid)]);
  if ((member.gid ?? 0) > 0o7777777) records.push(['gid', String(member.gid)]);
  const content = bytesOf(member.content ?? '');
  const parts: Buffer[] = [];
  if (records.length > 0) parts.push(extension('x', paxBytes(records)));
  parts.push(headerOf(member, name, link, member.size ?? content.length), padded(content));
  return Buffer.concat(parts);
}

/** An extension member (`x`, `g`, `L` or `K`) with this payload. */
export function extension(type: string, payload: Uint8Array): Buffer {
  const member: TarMember = { name: '././@Ext', type };
  const header = headerOf(member, bytesOf(member.name), Buffer.alloc(0), payload.length);
  return Buffer.concat([header, padded(payload)]);
}

export function paxBytes(
  records: ReadonlyArray<readonly [key: string, value: string | Uint8Array]>,
): Buffer {
  return Buffer.concat(
    records.map(([key, value]) => {
      const body = Buffer.concat([Buffer.from(` ${key}=`), bytesOf(value), Buffer.from('\n')]);
      let length = body.length + 1;
      while (String(length).length + body.length !== length) length++;
      return Buffer.concat([Buffer.from(String(length)), body]);
    }),
  );
}

function headerOf(member: TarMember, name: Buffer, link: Buffer, size: number): Buffer {
  const header = Buffer.alloc(BLOCK);
  name.copy(header, 0, 0, 100);
  octal(header, 100, 8, member.mode ?? 0o644);
  octal(header, 108, 8, Math.min(member.uid ?? 0, 0o7777777));
  octal(header, 116, 8, Math.min(member.gid ?? 0, 0o7777777));
  octal(header, 124, 12, size);
  octal(header, 136, 12, member.mtime ?? 0);
  header.write(member.type ?? '0', 156, 'latin1');
  link.copy(header, 157, 0, 100);
  header.write('ustar\x0000', 257, 'latin1');
  octal(header, 329, 8, member.major ?? 0);
  octal(header, 337, 8, member.minor ?? 0);
  member.patch?.(header);
  return sealed(header);
}

/** Puts the right checksum into a header. */
export function sealed(header: Buffer): Buffer {
  header.fill(0x20, 148, 156);
  let sum = 0;
  for (const byte of header) sum += byte;
  octal(header, 148, 7, sum);
  header[155] = 0x20;
  return header;
}

/** Zero-padded octal with a NUL at the end of the field. */
export function octal(header: Buffer, at: number, length: number, value: number): void {
  header.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, 'latin1');
}

/** GNU's base-256: the field as a big-endian two's complement integer, top bit of the first byte set. */
export function base256(header: Buffer, at: number, length: number, value: bigint): void {
  let rest = value;
  for (let i = length - 1; i >= 0; i--) {
    header[at + i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  header[at] = (header[at] as number) | 0x80;
}

function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((BLOCK - (bytes.length % BLOCK)) % BLOCK)]);
}

function bytesOf(value: string | Uint8Array): Buffer {
  return Buffer.from(value as Uint8Array);
}
