#include "read_now.h"

#include <cerrno>
#include <cstdint>
#include <sys/uio.h>

#include "read_columns.h"

namespace {

// With RWF_NOWAIT the kernel copies what is in memory and says EAGAIN instead of waiting for a disk.
double Read(int fd, uint8_t* target, size_t length, off_t offset) {
  const iovec vector{target, length};
  for (;;) {
    const ssize_t got = preadv2(fd, &vector, 1, offset, RWF_NOWAIT);
    if (got >= 0) return static_cast<double>(got);
    if (errno != EINTR) return -static_cast<double>(errno);
  }
}

}  // namespace

Napi::Value ReadNow(const Napi::CallbackInfo& info) {
  const int fd = static_cast<int>(WholeNumber(info, 0, 0, INT32_MAX, "fd"));
  auto target = TypedArray<Napi::Uint8Array>(info, 1, napi_uint8_array, "target");
  const size_t bytes = target.ByteLength();
  const size_t position = static_cast<size_t>(WholeNumber(info, 2, 0, bytes, "position"));
  const size_t length = static_cast<size_t>(WholeNumber(info, 3, 0, bytes - position, "length"));
  const off_t offset = static_cast<off_t>(WholeNumber(info, 4, 0, kOffsetMax - 1, "offset"));
  return Napi::Number::New(info.Env(), Read(fd, target.Data() + position, length, offset));
}

void ReadNowEach(const Napi::CallbackInfo& info) {
  const size_t count = static_cast<size_t>(WholeNumber(info, 0, 0, UINT32_MAX, "count"));
  auto target = TypedArray<Napi::Uint8Array>(info, 5, napi_uint8_array, "target");
  auto results = TypedArray<Napi::Int32Array>(info, 6, napi_int32_array, "results");
  const ReadColumns reads(info, 1, count, target.ByteLength());
  if (count > results.ElementLength()) throw Napi::RangeError::New(info.Env(), "results");
  for (size_t i = 0; i < count; i++) {
    results[i] = static_cast<int32_t>(Read(reads.fds[i], target.Data() + reads.positions[i],
                                           reads.lengths[i], static_cast<off_t>(reads.offsets[i])));
  }
}
