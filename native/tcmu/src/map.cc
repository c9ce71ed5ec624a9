#include "map.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>

namespace {

// struct tcmu_mailbox, as far as it is needed here.
struct Mailbox {
  uint16_t version;
  uint16_t flags;
  uint32_t ring_offset;
  uint32_t ring_bytes;
};
// struct iovec of a 64-bit kernel; its base is an offset.
struct Iovec {
  uint64_t offset;
  uint64_t length;
};

Iovec At(const uint8_t* iovecs, size_t i) {
  Iovec iovec;
  memcpy(&iovec, iovecs + i * sizeof iovec, sizeof iovec);
  return iovec;
}

}  // namespace

int Map::Open(int fd, size_t bytes) {
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return -errno;
  base_ = static_cast<uint8_t*>(mapped);
  bytes_ = bytes;
  Mailbox mailbox;
  memcpy(&mailbox, base_, sizeof mailbox);
  const uint64_t end = uint64_t{mailbox.ring_offset} + mailbox.ring_bytes;
  if (mailbox.ring_offset < sizeof mailbox || end > bytes) {
    Close();
    return -EPROTO;
  }
  ring_bytes_ = static_cast<size_t>(end);
  return 0;
}

void Map::Close() {
  if (base_ != nullptr) munmap(base_, bytes_);
  base_ = nullptr;
}

bool Map::Names(const uint8_t* iovecs, size_t count, size_t length) const {
  for (size_t i = 0; i < count && length > 0; i++) {
    const Iovec iovec = At(iovecs, i);
    if (iovec.offset < ring_bytes_ || iovec.offset > bytes_) return false;
    if (iovec.length > bytes_ - iovec.offset) return false;
    length -= std::min<size_t>(length, iovec.length);
  }
  return length == 0;
}

bool Map::Scatter(const uint8_t* iovecs, size_t count, const uint8_t* bytes, size_t length) {
  if (!Names(iovecs, count, length)) return false;
  for (size_t i = 0; length > 0; i++) {
    const Iovec iovec = At(iovecs, i);
    const size_t part = std::min<size_t>(length, iovec.length);
    memcpy(base_ + iovec.offset, bytes, part);
    bytes += part;
    length -= part;
  }
  return true;
}

bool Map::Gather(const uint8_t* iovecs, size_t count, uint8_t* bytes, size_t length) {
  if (!Names(iovecs, count, length)) return false;
  for (size_t i = 0; length > 0; i++) {
    const Iovec iovec = At(iovecs, i);
    const size_t part = std::min<size_t>(length, iovec.length);
    memcpy(bytes, base_ + iovec.offset, part);
    bytes += part;
    length -= part;
  }
  return true;
}
