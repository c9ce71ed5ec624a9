#include "read_now.h"

#include <cerrno>
#include <cstdint>
#include <sys/uio.h>

#include "read_columns.h"

namespace {

// With RWF_NOWAIT the kernel copies bytes in memory, and answers EAGAIN instead of waiting for a disk.
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
  const int fd = FileDescriptor(info, 0);
  const auto target = Elements<uint8_t>(info, 1, "target");
  const auto bytes = static_cast<double>(target.size());
  const auto position = Unsigned<size_t>(info, 2, bytes, "position");
  const auto length = Unsigned<size_t>(info, 3, bytes - static_cast<double>(position), "length");
  const auto offset = Unsigned<off_t>(info, 4, kSafeIntegerMax, "offset");
  return Napi::Number::New(info.Env(), Read(fd, target.data() + position, length, offset));
}

void ReadNowEach(const Napi::CallbackInfo& info) {
  const auto count = Unsigned<size_t>(info, 0, UINT32_MAX, "count");
  const auto target = Elements<uint8_t>(info, 5, "target");
  const auto results = Elements<int32_t>(info, 6, "results");
  const ReadColumns reads(info, 1, count, target.size());
  if (count > results.size()) throw Napi::RangeError::New(info.Env(), "results");
  for (size_t i = 0; i < count; i++) {
    results[i] = static_cast<int32_t>(Read(reads.fds[i], target.data() + reads.positions[i],
                                           reads.lengths[i], static_cast<off_t>(reads.offsets[i])));
  }
}
