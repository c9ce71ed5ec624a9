// The arguments that say what to read, in one call for many reads.
#pragma once

#include "addon.h"

// 2^53: offsets in files are numbers that a double holds exactly.
constexpr double kOffsetMax = 9007199254740992.0;

inline bool IsOffset(double value) { return value >= 0 && value < kOffsetMax && value == std::floor(value); }

// Many reads into one buffer, as columns: read i takes lengths[i] bytes of fds[i] from offsets[i] on to
// target[positions[i]...]. results[i] is what comes of it.
struct ReadColumns {
  size_t count;
  const int32_t* fds;
  const double* offsets;
  const uint32_t* positions;
  const uint32_t* lengths;

  // The first four arguments from `first` on, of which each has at least `count` entries and each read
  // stays inside `target_bytes`.
  ReadColumns(const Napi::CallbackInfo& info, size_t first, size_t count_, size_t target_bytes)
      : count(count_) {
    const auto fds_array = TypedArray<Napi::Int32Array>(info, first, napi_int32_array, "fds");
    const auto offsets_array =
        TypedArray<Napi::Float64Array>(info, first + 1, napi_float64_array, "offsets");
    const auto positions_array =
        TypedArray<Napi::Uint32Array>(info, first + 2, napi_uint32_array, "positions");
    const auto lengths_array =
        TypedArray<Napi::Uint32Array>(info, first + 3, napi_uint32_array, "lengths");
    if (count > fds_array.ElementLength() || count > offsets_array.ElementLength() ||
        count > positions_array.ElementLength() || count > lengths_array.ElementLength()) {
      throw Napi::RangeError::New(info.Env(), "count");
    }
    fds = fds_array.Data();
    offsets = offsets_array.Data();
    positions = positions_array.Data();
    lengths = lengths_array.Data();
    for (size_t i = 0; i < count; i++) {
      const bool inside =
          positions[i] <= target_bytes && lengths[i] <= target_bytes - positions[i];
      if (!inside || !IsOffset(offsets[i])) throw Napi::RangeError::New(info.Env(), "reads");
    }
  }
};
