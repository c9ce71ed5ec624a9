#include "crc32c.h"

#include <array>
#include <cstring>

#if defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace {

constexpr std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t state = i;
    for (int bit = 0; bit < 8; bit++) state = (state >> 1) ^ (state & 1 ? 0x82F63B78u : 0);
    table[i] = state;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = MakeTable();

uint32_t WithTable(const uint8_t* bytes, size_t count, uint32_t state) {
  for (size_t i = 0; i < count; i++) state = (state >> 8) ^ kTable[(state ^ bytes[i]) & 0xff];
  return state;
}

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) uint32_t WithInstruction(const uint8_t* bytes, size_t count,
                                                           uint32_t seed) {
  uint64_t state = seed;
  for (; count >= 8; bytes += 8, count -= 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    state = _mm_crc32_u64(state, word);
  }
  auto narrow = static_cast<uint32_t>(state);
  for (; count > 0; bytes++, count--) narrow = _mm_crc32_u8(narrow, *bytes);
  return narrow;
}

bool HasInstruction() { return __builtin_cpu_supports("sse4.2"); }

#elif defined(__aarch64__)

__attribute__((target("+crc"))) uint32_t WithInstruction(const uint8_t* bytes, size_t count,
                                                         uint32_t state) {
  for (; count >= 8; bytes += 8, count -= 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    state = __crc32cd(state, word);
  }
  for (; count > 0; bytes++, count--) state = __crc32cb(state, *bytes);
  return state;
}

bool HasInstruction() { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }

#else

uint32_t WithInstruction(const uint8_t* bytes, size_t count, uint32_t state) {
  return WithTable(bytes, count, state);
}

bool HasInstruction() { return false; }

#endif

}  // namespace

uint32_t RawCrc32c(const uint8_t* bytes, size_t count, uint32_t seed) {
  static const bool has_instruction = HasInstruction();
  return has_instruction ? WithInstruction(bytes, count, seed) : WithTable(bytes, count, seed);
}
