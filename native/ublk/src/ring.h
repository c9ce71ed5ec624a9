// One io_uring, by system calls: ublk needs so little of it that a library is not worth installing.
#pragma once

#include <linux/io_uring.h>

#include <cstddef>
#include <cstdint>

// Not thread-safe. Numbers returned are 0 or more, or -errno.
class Ring {
 public:
  Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() { Close(); }

  // `flags` are IORING_SETUP_*. The ring has twice as many completions as `entries`.
  int Open(unsigned entries, uint32_t flags);
  // Signals `event_fd` when a completion is posted, or could be by Enter().
  int Register(int event_fd);
  // The kernel cancels commands in flight, some time later. Idempotent.
  void Close();
  // Like Close(), but leaves the descriptor open and returns it; -1 if it was closed.
  int Detach();

  // A zeroed submission, which the next Enter() submits. At most `entries` between two calls of Enter().
  io_uring_sqe* Next();
  // Submits, and runs the kernel's deferred work of this thread. Never waits.
  int Enter();

  // Whether Take() has something, or would have after Enter().
  bool HasWork() const;
  // The oldest completion; false if there is none.
  bool Take(uint64_t* user_data, int32_t* result);
  bool IsEmpty() const;

 private:
  int fd_ = -1;
  unsigned entries_ = 0;
  size_t sqe_bytes_ = 0;
  uint8_t* rings_ = nullptr;
  size_t rings_bytes_ = 0;
  uint8_t* sqes_ = nullptr;
  io_sqring_offsets sq_{};
  io_cqring_offsets cq_{};
  unsigned sq_tail_ = 0;
  unsigned queued_ = 0;

  uint32_t* At(uint32_t offset) const { return reinterpret_cast<uint32_t*>(rings_ + offset); }
};
