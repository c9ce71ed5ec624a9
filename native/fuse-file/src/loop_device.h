// The loop device on the file: read-only, past the page cache of the file (direct I/O), sectors of
// 512 bytes.
//
// Direct, because what is cached above the device need not be cached again below it; over FUSE it
// is also what keeps more than one read in flight. Sectors of 512 bytes, because a disk need not be
// whole pages.

#pragma once

#include "system.h"

namespace fusefile {

class LoopDevice {
 public:
  // Puts the open file behind a free loop device. Two processes that do so at once get two devices.
  bool Attach(int file, const char* file_path, Problem& problem);
  // Reads the first sector, past the page cache; an empty file has none.
  bool Probe(Problem& problem);
  // Frees the loop device.
  void Detach();

  const char* path() const { return path_; }

 private:
  Descriptor device_;
  char path_[32] = "";
};

}  // namespace fusefile
