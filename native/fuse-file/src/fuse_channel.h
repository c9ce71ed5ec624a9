// One FUSE mount, served by the kernel's own protocol (linux/fuse.h): a read-only file at the end of
// a chain of otherwise empty directories.
//
//   - The mount is in no mount namespace (fsmount(2)). No path leads to it, so no backup, `find` or
//     `grep -r` can read the file. It exists while a descriptor of it is open: for a device, that of
//     the loop driver.
//   - The chain of directories spells a path. The kernel shows that path as the file's name (the
//     backing_file of a loop device), which is how a later process finds the device.
//   - Everything but reads is answered here at once, from constants.
//   - Reads are asynchronous also with direct I/O (FUSE_ASYNC_DIO). Without, a loop device with direct
//     I/O has one read in flight.

#pragma once

#include <linux/fuse.h>

#include <cstddef>
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

  // Makes a mount with a file of `size_bytes` at `path`, which is absolute and outlives this. Requests
  // are answered from the first TakeNext() on. `root` is its root directory.
  bool Mount(const char* path, uint64_t size_bytes, Descriptor& root, Problem& problem);

  int fd() const { return device_.get(); }
  // Closes this descriptor of the channel; other processes keep theirs.
  void Close() { device_.Close(); }

  // The next read, which lies within the file and is not empty. Other requests before it are answered
  // on the way.
  Next TakeNext(Read& read);

  // False if the mount is gone. Answering a read whose process was killed succeeds.
  bool AnswerRead(uint64_t unique, const uint8_t* data, uint32_t length);
  bool AnswerError(uint64_t unique, int error);

 private:
  // The name of a node below its parent. Node 1 is the root, 2 the first name of the path.
  bool NameOf(uint64_t node, const char*& name, size_t& bytes) const;
  void FillAttributes(uint64_t node, fuse_attr& attributes) const;
  bool Reply(uint64_t unique, int error, const void* body, uint32_t body_bytes);
  bool ReplyInit(uint64_t unique, const uint8_t* body);
  bool ReplyEntry(uint64_t unique, uint64_t parent, const char* name);
  bool ReplyAttributes(uint64_t unique, uint64_t node);
  bool ReplyOpen(uint64_t unique);
  bool ReplyStatfs(uint64_t unique);

  Descriptor device_;
  const char* path_ = "";
  // The node of the file: the last name of the path.
  uint64_t file_node_ = 0;
  uint64_t size_bytes_ = 0;
  // The kernel wants room for a write, though there is none: FUSE_MIN_READ_BUFFER, 8 KiB.
  alignas(8) uint8_t request_[16 << 10];
};

}  // namespace fusefile
