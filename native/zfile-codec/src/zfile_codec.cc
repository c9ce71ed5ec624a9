// Runs of ZFile blocks in memory: find, check and decompress them, or compress and checksum them.
//
// Rules:
//   - Both buffers belong to the caller. With any arguments and any bytes, nothing outside them is read or written:
//     types and ranges are checked here as well as in src/zfile/block-codec.ts.
//   - Damaged blocks are an answer (the index of the first bad one), not an exception. Wrong arguments
//     throw a TypeError or RangeError: they are a bug of the caller.
//   - No state but one zstd context per thread, made at first use and freed when the thread ends.
//   - Nothing blocks: the cost of a call is CPU only, about 1 us per 4 KiB block of lz4, and 2.5 us per leaf hashed.

#include <lz4.h>
#include <zstd.h>

#include <cstdint>
#include <cstring>
#include <memory>

#include <napi.h>

#include "addon.h"
#include "crc32c.h"
#include "sha256.h"

namespace {

constexpr uint32_t kLz4 = 1;
constexpr uint32_t kZstd = 2;
// docs/adr/0018: 4 % smaller than by level 3, for a fifth more CPU of obdconv. Reading is as fast.
constexpr int kZstdLevel = 6;
constexpr uint32_t kBlockSeed = 100007;
constexpr uint32_t kChecksumBytes = 4;

struct FreeZstd {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

using DecompressorPointer = std::unique_ptr<ZSTD_DCtx, FreeZstd>;
using CompressorPointer = std::unique_ptr<ZSTD_CCtx, FreeZstd>;

// This thread's context. If there was no memory for it, a later call tries again.
template <typename Pointer, typename Create>
auto* ContextOf(Napi::Env env, Pointer& context, Create create) {
  if (!context) context.reset(create());
  if (!context) throw Napi::Error::New(env, "no memory for a zstd context");
  return context.get();
}

ZSTD_DCtx* Decompressor(Napi::Env env) {
  thread_local DecompressorPointer context;
  return ContextOf(env, context, ZSTD_createDCtx);
}

ZSTD_CCtx* Compressor(Napi::Env env) {
  thread_local CompressorPointer context;
  return ContextOf(env, context, ZSTD_createCCtx);
}

// Little-endian on any machine; compilers make one load or store of each.
uint32_t LoadU32(const uint8_t* at) {
  return at[0] | at[1] << 8 | at[2] << 16 | static_cast<uint32_t>(at[3]) << 24;
}

void StoreU32(uint8_t* at, uint32_t value) {
  for (int i = 0; i < 4; i++) at[i] = static_cast<uint8_t>(value >> (8 * i));
}

constexpr double kBlockBytesMax = LZ4_MAX_INPUT_SIZE;

uint32_t Algorithm(const Napi::CallbackInfo& info) {
  return static_cast<uint32_t>(WholeNumber(info, 0, kLz4, kZstd, "algorithm"));
}

size_t BlockBytes(const Napi::CallbackInfo& info, size_t i) {
  return static_cast<size_t>(WholeNumber(info, i, 1, kBlockBytesMax, "blockBytes"));
}

Napi::Error OutOfRange(Napi::Env env, const char* what) {
  return Napi::RangeError::New(env, what);
}

// Decompresses exactly `wanted` bytes; false if the block is damaged.
bool Decompress(Napi::Env env, uint32_t algorithm, const uint8_t* source, size_t stored,
                uint8_t* target, size_t wanted) {
  if (algorithm == kLz4) {
    const int got = LZ4_decompress_safe(reinterpret_cast<const char*>(source),
                                        reinterpret_cast<char*>(target), static_cast<int>(stored),
                                        static_cast<int>(wanted));
    return got >= 0 && static_cast<size_t>(got) == wanted;
  }
  return ZSTD_decompressDCtx(Decompressor(env), target, wanted, source, stored) == wanted;
}

// Returns the compressed length, or 0 where it does not fit in `room`.
size_t Compress(Napi::Env env, uint32_t algorithm, const uint8_t* source, size_t length,
                uint8_t* target, size_t room) {
  if (algorithm == kLz4) {
    return static_cast<size_t>(LZ4_compress_default(
        reinterpret_cast<const char*>(source), reinterpret_cast<char*>(target),
        static_cast<int>(length), static_cast<int>(room)));
  }
  const size_t got =
      ZSTD_compressCCtx(Compressor(env), target, room, source, length, kZstdLevel);
  return ZSTD_isError(got) ? 0 : got;
}

// decode(algorithm, checked, blockBytes, source, offsets, first, count, target, targetAt, bytes)
//
// Block i, for i in [first, first + count), is stored in source[offsets[i] - offsets[first],
// offsets[i + 1] - offsets[first]), and ends in a checksum if `checked`. `bytes` decompressed bytes
// go to target[targetAt...]: blockBytes for each block, the rest for the last.
// Returns the first bad block, counted from `first`, or -1.
Napi::Value Decode(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const uint32_t algorithm = Algorithm(info);
  const bool checked = Boolean(info, 1, "checked");
  const size_t block_bytes = BlockBytes(info, 2);
  const auto source = Elements<uint8_t>(info, 3, "source");
  const auto offsets = Elements<uint32_t>(info, 4, "offsets");
  const auto first = Unsigned<size_t>(info, 5, UINT32_MAX, "first");
  const auto count = Unsigned<size_t>(info, 6, UINT32_MAX, "count");
  const auto target = Elements<uint8_t>(info, 7, "target");
  const auto target_at = Unsigned<size_t>(info, 8, kSafeIntegerMax, "targetAt");
  const auto bytes = Unsigned<size_t>(info, 9, kSafeIntegerMax, "bytes");

  if (first + count >= offsets.size()) throw OutOfRange(env, "offsets");
  if (target_at > target.size() || bytes > target.size() - target_at) {
    throw OutOfRange(env, "target");
  }
  if ((bytes + block_bytes - 1) / block_bytes != count) throw OutOfRange(env, "bytes");

  const uint32_t* offset = offsets.data() + first;
  const size_t trailer = checked ? kChecksumBytes : 0;
  uint8_t* to = target.data() + target_at;
  size_t left = bytes;
  for (size_t i = 0; i < count; i++) {
    const size_t from = offset[i] - offset[0];
    const size_t end = offset[i + 1] - offset[0];
    if (from > end || end > source.size()) throw OutOfRange(env, "source");
    if (end - from <= trailer) return Napi::Number::New(env, static_cast<double>(i));
    const size_t stored = end - from - trailer;
    const uint8_t* at = source.data() + from;
    const size_t wanted = left < block_bytes ? left : block_bytes;
    if ((checked && RawCrc32c(at, stored, kBlockSeed) != LoadU32(at + stored)) ||
        !Decompress(env, algorithm, at, stored, to, wanted)) {
      return Napi::Number::New(env, static_cast<double>(i));
    }
    to += wanted;
    left -= wanted;
  }
  return Napi::Number::New(env, -1);
}

// encode(algorithm, blockBytes, source, bytes, target, lengths)
//
// Compresses source[0, bytes) in blocks of blockBytes, each followed by its checksum, into target,
// and stores each stored length in `lengths`. Returns the bytes used; RangeError if anything is full.
Napi::Value Encode(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const uint32_t algorithm = Algorithm(info);
  const size_t block_bytes = BlockBytes(info, 1);
  const auto source = Elements<uint8_t>(info, 2, "source");
  const auto bytes = Unsigned<size_t>(info, 3, static_cast<double>(source.size()), "bytes");
  const auto target = Elements<uint8_t>(info, 4, "target");
  const auto lengths = Elements<uint32_t>(info, 5, "lengths");

  if ((bytes + block_bytes - 1) / block_bytes > lengths.size()) {
    throw OutOfRange(env, "lengths");
  }

  size_t used = 0;
  size_t block = 0;
  for (size_t from = 0; from < bytes; from += block_bytes, block++) {
    const size_t length = bytes - from < block_bytes ? bytes - from : block_bytes;
    const size_t room = target.size() - used;
    if (room <= kChecksumBytes) throw OutOfRange(env, "target");
    uint8_t* at = target.data() + used;
    const size_t got = Compress(
        env, algorithm, source.data() + from, length, at, room - kChecksumBytes);
    if (got == 0) throw OutOfRange(env, "target");
    StoreU32(at + got, RawCrc32c(at, got, kBlockSeed));
    lengths[block] = static_cast<uint32_t>(got + kChecksumBytes);
    used += got + kChecksumBytes;
  }
  return Napi::Number::New(env, static_cast<double>(used));
}

// boundaries(lengths, boundaries, shortest, longest)
//
// From stored lengths, u32 little-endian each, to where each block ends counted from the first one's start:
// boundaries[0] = 0, boundaries[i + 1] = boundaries[i] + length i. Returns the first block whose length is not
// in [shortest, longest], or -1.
Napi::Value Boundaries(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto lengths = Elements<uint8_t>(info, 0, "lengths");
  const auto boundaries = Elements<uint32_t>(info, 1, "boundaries");
  const auto shortest = Unsigned<uint32_t>(info, 2, UINT32_MAX, "shortest");
  const auto longest = Unsigned<uint32_t>(info, 3, UINT32_MAX, "longest");
  const size_t count = lengths.size() / 4;
  if (boundaries.size() != count + 1) throw OutOfRange(env, "boundaries");
  if (count * static_cast<uint64_t>(longest) > UINT32_MAX) throw OutOfRange(env, "longest");
  uint32_t* to = boundaries.data();
  uint32_t end = 0;
  to[0] = 0;
  for (size_t i = 0; i < count; i++) {
    const uint32_t length = LoadU32(lengths.data() + 4 * i);
    if (length < shortest || length > longest) {
      return Napi::Number::New(env, static_cast<double>(i));
    }
    end += length;
    to[i + 1] = end;
  }
  return Napi::Number::New(env, -1);
}

constexpr size_t kLeafBytes = 4096;
constexpr size_t kHashBytes = Sha256::kBytes;

// The leaves of source[at, at + bytes), the last of which may be short, and room for a hash of each from
// hashes[hashes_at] on.
struct Leaves {
  const uint8_t* source;
  size_t bytes;
  uint8_t* hashes;

  explicit Leaves(const Napi::CallbackInfo& info) {
    const auto from = Elements<uint8_t>(info, 0, "source");
    const auto at = Unsigned<size_t>(info, 1, kSafeIntegerMax, "at");
    bytes = Unsigned<size_t>(info, 2, kSafeIntegerMax, "bytes");
    const auto to = Elements<uint8_t>(info, 3, "hashes");
    const auto hashes_at = Unsigned<size_t>(info, 4, kSafeIntegerMax, "hashesAt");
    if (at > from.size() || bytes > from.size() - at) throw OutOfRange(info.Env(), "source");
    const size_t count = (bytes + kLeafBytes - 1) / kLeafBytes;
    if (hashes_at > to.size() || count > (to.size() - hashes_at) / kHashBytes) {
      throw OutOfRange(info.Env(), "hashes");
    }
    source = from.data() + at;
    hashes = to.data() + hashes_at;
  }

  // Calls visit(hash of the leaf, its place in `hashes`) until that is false. Returns the number of that leaf, or -1.
  template <typename Visit>
  double FirstRefused(Visit visit) const {
    uint8_t hash[kHashBytes];
    uint8_t* place = hashes;
    for (size_t from = 0; from < bytes; from += kLeafBytes, place += kHashBytes) {
      const size_t left = bytes - from;
      Sha256::Of(source + from, left < kLeafBytes ? left : kLeafBytes, hash);
      if (!visit(hash, place)) return static_cast<double>(from / kLeafBytes);
    }
    return -1;
  }
};

// hashLeaves(source, at, bytes, hashes, hashesAt)
//
// Stores the SHA-256 of each leaf of source[at, at + bytes) in `hashes`, from hashesAt on.
Napi::Value HashLeaves(const Napi::CallbackInfo& info) {
  const Leaves leaves(info);
  leaves.FirstRefused([](const uint8_t* hash, uint8_t* place) {
    memcpy(place, hash, kHashBytes);
    return true;
  });
  return info.Env().Undefined();
}

// firstWrongLeaf(source, at, bytes, hashes, hashesAt)
//
// Compares those hashes with the ones in `hashes`. Returns the number of the first leaf that differs, or -1.
Napi::Value FirstWrongLeaf(const Napi::CallbackInfo& info) {
  const Leaves leaves(info);
  const double found = leaves.FirstRefused([](const uint8_t* hash, const uint8_t* place) {
    return memcmp(hash, place, kHashBytes) == 0;
  });
  return Napi::Number::New(info.Env(), found);
}

// firstWrongCrc(source, at, bytes, crcs, crcsAt)
//
// Compares the CRC-32C, with seed 0, of each leaf of source[at, at + bytes), all of them whole, with crcs[crcsAt] on. Returns the
// number of the first leaf that differs, or -1.
Napi::Value FirstWrongCrc(const Napi::CallbackInfo& info) {
  const auto from = Elements<uint8_t>(info, 0, "source");
  const auto at = Unsigned<size_t>(info, 1, kSafeIntegerMax, "at");
  const auto bytes = Unsigned<size_t>(info, 2, kSafeIntegerMax, "bytes");
  const auto crcs = Elements<uint32_t>(info, 3, "crcs");
  const auto crcs_at = Unsigned<size_t>(info, 4, kSafeIntegerMax, "crcsAt");
  if (at > from.size() || bytes > from.size() - at || bytes % kLeafBytes != 0) {
    throw OutOfRange(info.Env(), "source");
  }
  const size_t count = bytes / kLeafBytes;
  if (crcs_at > crcs.size() || count > crcs.size() - crcs_at) throw OutOfRange(info.Env(), "crcs");
  for (size_t i = 0; i < count; i++) {
    const uint8_t* const leaf = from.data() + at + i * kLeafBytes;
    if (RawCrc32c(leaf, kLeafBytes, 0) != crcs[crcs_at + i]) {
      return Napi::Number::New(info.Env(), static_cast<double>(i));
    }
  }
  return Napi::Number::New(info.Env(), -1);
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("decode", Napi::Function::New(env, Decode, "decode"));
  exports.Set("boundaries", Napi::Function::New(env, Boundaries, "boundaries"));
  exports.Set("encode", Napi::Function::New(env, Encode, "encode"));
  exports.Set("hashLeaves", Napi::Function::New(env, HashLeaves, "hashLeaves"));
  exports.Set("firstWrongLeaf", Napi::Function::New(env, FirstWrongLeaf, "firstWrongLeaf"));
  exports.Set("firstWrongCrc", Napi::Function::New(env, FirstWrongCrc, "firstWrongCrc"));
  return exports;
}

}  // namespace

NODE_API_MODULE(zfile_codec, Init)
