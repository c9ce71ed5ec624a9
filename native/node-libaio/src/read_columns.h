// The arguments of one call for many reads.
#pragma once

#include "addon.h"

inline bool IsOffset(double value) {
  return value >= 0 && value <= kSafeIntegerMax && value == std::floor(value);
}

// Many reads into one buffer, as columns: read i copies lengths[i] bytes of fds[i] from offsets[i] to
// target[positions[i]...].
struct ReadColumns {
  size_t count;
  const int32_t* fds;
  const double* offsets;
  const uint32_t* positions;
  const uint32_t* lengths;

  // Takes four arguments from `first` on. Throws unless each has at least `count` entries and each read stays inside
  // `target_bytes`.
  ReadColumns(const Napi::CallbackInfo& info, size_t first, size_t count_, size_t target_bytes)
      : count(count_) {
    const auto fd_column = Elements<int32_t>(info, first, "fds");
    const auto offset_column = Elements<double>(info, first + 1, "offsets");
    const auto position_column = Elements<uint32_t>(info, first + 2, "positions");
    const auto length_column = Elements<uint32_t>(info, first + 3, "lengths");
    if (count > fd_column.size() || count > offset_column.size() ||
        count > position_column.size() || count > length_column.size()) {
      throw Napi::RangeError::New(info.Env(), "count");
    }
    fds = fd_column.data();
    offsets = offset_column.data();
    positions = position_column.data();
    lengths = length_column.data();
    for (size_t i = 0; i < count; i++) {
      const bool inside =
          positions[i] <= target_bytes && lengths[i] <= target_bytes - positions[i];
      if (!inside || !IsOffset(offsets[i])) throw Napi::RangeError::New(info.Env(), "reads");
    }
  }
};
