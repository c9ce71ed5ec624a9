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

// The state after kLaneBytes zeroes, as four look-ups: the register is linear in its bits.
constexpr size_t kLaneBytes = 256;
using Shift = std::array<std::array<uint32_t, 256>, 4>;

constexpr Shift MakeShift() {
  // First for each single bit; every other state is a sum of these.
  std::array<uint32_t, 32> of_bit{};
  for (int bit = 0; bit < 32; bit++) {
    uint32_t state = 1u << bit;
    for (size_t i = 0; i < kLaneBytes; i++) state = (state >> 8) ^ kTable[state & 0xff];
    of_bit[static_cast<size_t>(bit)] = state;
  }
  Shift shift{};
  for (size_t byte = 0; byte < 4; byte++) {
    for (uint32_t value = 0; value < 256; value++) {
      for (size_t bit = 0; bit < 8; bit++) {
        if (value >> bit & 1) shift[byte][value] ^= of_bit[byte * 8 + bit];
      }
    }
  }
  return shift;
}

constexpr Shift kShift = MakeShift();

inline uint32_t Shifted(uint32_t state) {
  return kShift[0][state & 0xff] ^ kShift[1][state >> 8 & 0xff] ^ kShift[2][state >> 16 & 0xff] ^
         kShift[3][state >> 24];
}

#if defined(__x86_64__)

// The instruction answers after three cycles and takes another each cycle: three lanes side by side.
__attribute__((target("sse4.2"))) uint32_t WithInstruction(const uint8_t* bytes, size_t count,
                                                           uint32_t seed) {
  uint64_t state = seed;
  for (; count >= 3 * kLaneBytes; bytes += 3 * kLaneBytes, count -= 3 * kLaneBytes) {
    uint64_t second = 0;
    uint64_t third = 0;
    for (size_t i = 0; i < kLaneBytes; i += 8) {
      uint64_t words[3];
      memcpy(&words[0], bytes + i, 8);
      memcpy(&words[1], bytes + kLaneBytes + i, 8);
      memcpy(&words[2], bytes + 2 * kLaneBytes + i, 8);
      state = _mm_crc32_u64(state, words[0]);
      second = _mm_crc32_u64(second, words[1]);
      third = _mm_crc32_u64(third, words[2]);
    }
    const uint32_t two = Shifted(static_cast<uint32_t>(state)) ^ static_cast<uint32_t>(second);
    state = Shifted(two) ^ static_cast<uint32_t>(third);
  }
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
  for (; count >= 3 * kLaneBytes; bytes += 3 * kLaneBytes, count -= 3 * kLaneBytes) {
    uint32_t second = 0;
    uint32_t third = 0;
    for (size_t i = 0; i < kLaneBytes; i += 8) {
      uint64_t words[3];
      memcpy(&words[0], bytes + i, 8);
      memcpy(&words[1], bytes + kLaneBytes + i, 8);
      memcpy(&words[2], bytes + 2 * kLaneBytes + i, 8);
      state = __crc32cd(state, words[0]);
      second = __crc32cd(second, words[1]);
      third = __crc32cd(third, words[2]);
    }
    state = Shifted(Shifted(state) ^ second) ^ third;
  }
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
