/**
 * Reads a tar stream member by member: ustar, pax (local and global headers), GNU long names, base-256 numbers and GNU
 * sparse files of all four kinds. docs/adr/0003-own-tar-reader.md says why not a library.
 *
 *     next() ......... the next member, or undefined at the end of the archive
 *     content(sink) .. that member's bytes, in order, holes as holes; unread content is skipped
 *
 * Guarantees: every header's checksum is checked; numbers are safe integers; a length from the input allocates at most
 * EXTENSION_BYTES_MAX; file content is passed on in the pieces of the input. After the end-of-archive marker the stream
 * is drained, so that a digest of the underlying stream covers all of it. As in Go's reader, which every container
 * engine uses, a stream that ends at a member's edge without the marker is whole: the layer's digest, not the marker,
 * proves completeness.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { TAR_BLOCK_BYTES } from '../io/block-sizes.js';
import { ByteStream } from './byte-stream.js';
import { type HeaderBlock, HeaderProblem, isZeroBlock, parseHeaderBlock } from './header-block.js';
import { PaxRecords } from './pax-records.js';
import {
  checkedCount,
  oldGnuEntries,
  oldGnuExtension,
  oldGnuSize,
  Pax1Map,
  paxPairs,
  SparseMap,
} from './sparse-map.js';
import { type ContentSink, quoteName, type TarEntry, type TarEntryKind } from './tar-entry.js';

/** One pax header, long name or long link: Go's reader, so every engine, stops at 1 MiB as well. */
export const EXTENSION_BYTES_MAX = 1 << 20;
/** Extension headers in front of one member; a sound archive has at most three (g, x or L, K). */
const EXTENSIONS_MAX = 16;

const KINDS: Readonly<Record<string, TarEntryKind>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

/** The extension headers' information about the member that follows them. */
interface Extensions {
  pax: PaxRecords | undefined;
  longName: Uint8Array | undefined;
  longLink: Uint8Array | undefined;
}

export class TarReader {
  readonly #stream: ByteStream;
  readonly #label: string;
  #global: PaxRecords | undefined;
  #storedLeft = 0;
  #paddingLeft = 0;
  #sparse: SparseMap | undefined;
  #current: TarEntry | undefined;

  /** @param label - The archive's name in an error message. */
  constructor(source: AsyncIterable<Uint8Array>, label: string) {
    this.#stream = new ByteStream(source);
    this.#label = label;
  }

  /**
   * Skips the rest of the current member and reads the next one's headers.
   *
   * @throws {ObdError} `Corrupt`, naming offset and member; errors of the source.
   */
  async next(): Promise<TarEntry | undefined> {
    await this.#skip(this.#storedLeft + this.#paddingLeft);
    this.#storedLeft = 0;
    this.#paddingLeft = 0;
    this.#current = undefined;
    this.#sparse = undefined;
    const extensions: Extensions = { pax: undefined, longName: undefined, longLink: undefined };
    for (let headers = 0; headers <= EXTENSIONS_MAX; headers++) {
      const offset = this.#stream.position;
      const block = await this.#headerBlock(offset, headers > 0);
      if (block === undefined) return undefined;
      try {
        const header = parseHeaderBlock(block);
        if (await this.#extension(header, extensions, offset)) continue;
        const entry = await this.#member(block.slice(), header, extensions, offset);
        this.#current = entry;
        return entry;
      } catch (error) {
        throw this.#asCorrupt(error, offset);
      }
    }
    const found = `more than ${EXTENSIONS_MAX} extension headers in a row`;
    throw this.#corrupt(found, this.#stream.position);
  }

  /**
   * Passes the current member's content to `sink`, front to back, holes included.
   *
   * @throws {ObdError} `Corrupt` if the archive ends inside it; errors of the sink and the source.
   */
  async content(sink: ContentSink): Promise<void> {
    if (this.#sparse === undefined) return await this.#copy(this.#storedLeft, sink);
    for (const { holeBytes, dataBytes } of this.#sparse.runs()) {
      if (holeBytes > 0) sink.hole(holeBytes);
      await this.#copy(dataBytes, sink);
    }
  }

  /** Stops reading and returns the source. */
  async close(): Promise<void> {
    await this.#stream.close();
  }

  async #copy(lengthBytes: number, sink: ContentSink): Promise<void> {
    let left = lengthBytes;
    while (left > 0) {
      if (!(await this.#stream.fill())) throw this.#truncated();
      const piece = this.#stream.buffered(left);
      left -= piece.length;
      this.#storedLeft -= piece.length;
      sink.write(piece);
    }
  }

  async #skip(lengthBytes: number): Promise<void> {
    if (!(await this.#stream.skip(lengthBytes))) throw this.#truncated();
  }

  /** The next header block, or undefined at the end of the archive, after draining the stream. */
  async #headerBlock(offset: number, owed: boolean): Promise<Uint8Array | undefined> {
    const block = await this.#stream.read(TAR_BLOCK_BYTES);
    if (block.length === 0 && !owed) return undefined;
    if (block.length < TAR_BLOCK_BYTES) throw this.#corrupt('it ends inside a header', offset);
    if (!isZeroBlock(block)) return block;
    const second = await this.#stream.read(TAR_BLOCK_BYTES);
    if (owed) throw this.#corrupt('the archive ends after an extension header', offset);
    if (second.length > 0 && !isZeroBlock(second)) {
      throw this.#corrupt('a lone block of zeroes, then more data', offset);
    }
    await this.#stream.drain();
    return undefined;
  }

  /** Reads a header that describes the next one. Returns false if it is a member itself. */
  async #extension(header: HeaderBlock, into: Extensions, offset: number): Promise<boolean> {
    const flag = String.fromCharCode(header.typeflag);
    if (!'xgLK'.includes(flag)) return false;
    if (header.sizeBytes > EXTENSION_BYTES_MAX) {
      throw new HeaderProblem(
        `an extension header of ${header.sizeBytes} bytes, the limit is ${EXTENSION_BYTES_MAX}`,
      );
    }
    const bytes = (await this.#stream.read(header.sizeBytes)).slice();
    if (bytes.length < header.sizeBytes) throw this.#corrupt('it ends inside a header', offset);
    await this.#skip(paddingAfter(header.sizeBytes));
    if (flag === 'x') into.pax = PaxRecords.merge(into.pax, PaxRecords.parse(bytes));
    if (flag === 'g') this.#addGlobal(PaxRecords.parse(bytes));
    if (flag === 'L') into.longName = untilNul(bytes);
    if (flag === 'K') into.longLink = untilNul(bytes);
    return true;
  }

  /** A stream of global headers must not add up to unbounded memory. */
  #addGlobal(records: PaxRecords): void {
    const merged = PaxRecords.merge(this.#global, records);
    if (merged.valueBytes > EXTENSION_BYTES_MAX) {
      throw new HeaderProblem(`global pax headers of more than ${EXTENSION_BYTES_MAX} bytes`);
    }
    this.#global = merged;
  }

  async #member(
    block: Uint8Array,
    header: HeaderBlock,
    extensions: Extensions,
    offset: number,
  ): Promise<TarEntry> {
    const pax = PaxRecords.merge(this.#global, extensions.pax);
    const name =
      pax.path('GNU.sparse.name') ?? pax.path('path') ?? extensions.longName ?? header.name;
    const kind = kindOf(header.typeflag, name);
    const hasContent = kind === 'file' || kind === 'other';
    // Links, devices and directories have no content, even if their size field is not zero (as in Go).
    const storedBytes = hasContent ? (pax.natural('size') ?? header.sizeBytes) : 0;
    this.#storedLeft = storedBytes;
    this.#paddingLeft = paddingAfter(storedBytes);
    if (kind === 'file') this.#sparse = await this.#sparseMap(block, header.typeflag, pax);
    return {
      kind,
      typeflag: header.typeflag,
      name,
      linkName: pax.path('linkpath') ?? extensions.longLink ?? header.linkName,
      mode: header.mode,
      uid: pax.natural('uid') ?? header.uid,
      gid: pax.natural('gid') ?? header.gid,
      mtime: pax.time('mtime') ?? header.mtime,
      atime: pax.time('atime') ?? header.atime,
      ctime: pax.time('ctime') ?? header.ctime,
      sizeBytes: this.#sparse?.sizeBytes ?? storedBytes,
      major: header.major,
      minor: header.minor,
      xattrs: pax.xattrs(),
      offset,
    };
  }

  async #sparseMap(
    block: Uint8Array,
    typeflag: number,
    pax: PaxRecords,
  ): Promise<SparseMap | undefined> {
    if (typeflag === 0x53) {
      const { pairs, extended } = oldGnuEntries(block);
      for (let more = extended; more; ) {
        const extension = await this.#stream.read(TAR_BLOCK_BYTES);
        if (extension.length < TAR_BLOCK_BYTES) throw this.#truncated();
        const part = oldGnuExtension(extension);
        checkedCount((pairs.length + part.pairs.length) / 2);
        pairs.push(...part.pairs);
        more = part.extended;
      }
      return new SparseMap(pairs, oldGnuSize(block), this.#storedLeft);
    }
    if (pax.text('GNU.sparse.major') === '1' && pax.text('GNU.sparse.minor') === '0') {
      const pairs = await this.#pax1Pairs();
      return new SparseMap(pairs, sparseSize(pax), this.#storedLeft);
    }
    const pairs = paxPairs(pax);
    return pairs === undefined
      ? undefined
      : new SparseMap(pairs, sparseSize(pax), this.#storedLeft);
  }

  /** The map in front of the content; it counts as stored bytes, in whole blocks. */
  async #pax1Pairs(): Promise<readonly number[]> {
    const map = new Pax1Map();
    for (let complete = false; !complete; ) {
      if (this.#storedLeft < TAR_BLOCK_BYTES)
        throw new HeaderProblem('the sparse map does not end');
      const block = await this.#stream.read(TAR_BLOCK_BYTES);
      if (block.length < TAR_BLOCK_BYTES) throw this.#truncated();
      this.#storedLeft -= TAR_BLOCK_BYTES;
      complete = map.add(block);
    }
    return map.pairs;
  }

  #truncated(): ObdError {
    const found = `it ends at ${this.#stream.position}, inside this member`;
    return this.#corrupt(found, this.#current?.offset ?? this.#stream.position);
  }

  #asCorrupt(error: unknown, offset: number): unknown {
    return error instanceof HeaderProblem ? this.#corrupt(error.message, offset) : error;
  }

  #corrupt(found: string, offset: number): ObdError {
    const member = this.#current === undefined ? '' : `, ${quoteName(this.#current.name)}`;
    return new ObdError(
      ErrorCodes.Corrupt,
      `Cannot read the tar of ${this.#label} at ${offset}${member}: ${found}`,
      { path: this.#label, offset },
    );
  }
}

/** The old convention: a plain file whose name ends in a slash is a directory. */
function kindOf(typeflag: number, name: Uint8Array): TarEntryKind {
  if (typeflag === 0 && name.at(-1) === 0x2f) return 'directory';
  return KINDS[String.fromCharCode(typeflag)] ?? 'other';
}

function sparseSize(pax: PaxRecords): number {
  const size = pax.natural('GNU.sparse.realsize') ?? pax.natural('GNU.sparse.size');
  if (size === undefined) throw new HeaderProblem('a sparse file without its real size');
  return size;
}

function paddingAfter(lengthBytes: number): number {
  return (TAR_BLOCK_BYTES - (lengthBytes % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES;
}

function untilNul(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0);
  return bytes.slice(0, end < 0 ? bytes.length : end);
}
