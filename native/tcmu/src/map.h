// The memory of a TCMU device: a mailbox and a command ring, whose pages always exist, and behind them the data area. It
// has only the pages that a command in flight names: touching another page is a SIGBUS.
#pragma once

#include <cstddef>
#include <cstdint>

class Map {
 public:
  ~Map() { Close(); }
  // 0, or -errno; -EPROTO if the file has no mailbox.
  int Open(int fd, size_t bytes);
  // Idempotent.
  void Close();

  uint8_t* base() const { return base_; }
  // The mailbox and the ring.
  size_t ring_bytes() const { return ring_bytes_; }

  // Copies `length` bytes between `bytes` and the first ranges of `count` iovecs: {offset in the map, length}, 64 bits
  // each. False, with nothing copied, if the iovecs are shorter, or name a range outside the data area.
  bool Scatter(const uint8_t* iovecs, size_t count, const uint8_t* bytes, size_t length);
  bool Gather(const uint8_t* iovecs, size_t count, uint8_t* bytes, size_t length);

 private:
  bool Names(const uint8_t* iovecs, size_t count, size_t length) const;

  uint8_t* base_ = nullptr;
  size_t bytes_ = 0;
  size_t ring_bytes_ = 0;
};
