// CRC-32C (reflected polynomial 0x82F63B78) as ZFile uses it: the state starts at the seed and
// is not inverted before or after.
#pragma once

#include <cstddef>
#include <cstdint>

// Uses the machine's CRC instruction where there is one (about 8 bytes in a cycle), else a table.
uint32_t RawCrc32c(const uint8_t* bytes, size_t count, uint32_t seed);
