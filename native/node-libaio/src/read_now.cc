#include "read_now.h"

#include <cerrno>
#include <cstdint>
#include <sys/uio.h>

#include "addon.h"

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
