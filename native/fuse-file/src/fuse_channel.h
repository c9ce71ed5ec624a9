// One FUSE mount, spoken to by the kernel's own protocol (linux/fuse.h), that is a single read-only
// file and no directory: the root of the file system is that file, so it is mounted on one.
//
//   - Only root can open it: its mode is 0400, and without allow_other the kernel asks no more of
//     anybody else.
//   - Everything but reads is answered here and at once, from what never changes: the size. So the
//     kernel waits for nobody's server but in a read.
//   - Reads are asynchronous also where they pass the page cache by (FUSE_ASYNC_DIO): without, a
//     loop device with direct I/O has one read in flight.

#pragma once

#include <cstdint>

#include "system.h"

namespace fusefile {

class FuseChannel {
 public:
  struct Read {
    uint64_t unique;
    uint64_t offset;
    uint32_t length;
  };
  enum class Next { kRead, kNothing, kGone };

  // Mounts a file of so many bytes on `path`, a file. The kernel is answered from the first
  // TakeNext() on.
  bool Mount(const char* path, uint64_t size_bytes, Problem& problem);

  int fd() const { return device_.get(); }
  // Lets go of the channel; whoever else has it goes on.
  void Close() { device_.Close(); }

  // The next read, which lies within the file and is not empty; what comes before it is answered on
  // the way.
  Next TakeNext(Read& read);

  // False if the mount is gone. A read that nobody waits for any more is nobody's problem.
  bool AnswerRead(uint64_t unique, const uint8_t* data, uint32_t length);
  bool AnswerError(uint64_t unique, int error);

 private:
  bool Reply(uint64_t unique, int error, const void* body, uint32_t body_bytes);
  bool ReplyInit(uint64_t unique, const uint8_t* body);
  bool ReplyAttributes(uint64_t unique);
  bool ReplyOpen(uint64_t unique);
  bool ReplyStatfs(uint64_t unique);

  Descriptor device_;
  uint64_t size_bytes_ = 0;
  // The kernel wants room for a write, though there is none: FUSE_MIN_READ_BUFFER, 8 KiB.
  alignas(8) uint8_t request_[16 << 10];
};

}  // namespace fusefile
