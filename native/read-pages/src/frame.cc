#include "frame.h"

#include <unistd.h>

#include <cerrno>

namespace readpages {

namespace {

// Pages of a hot blob: src/hot-blob/hot-index.ts.
constexpr uint32_t kBlocksMax = 32768;

bool ReadWhole(int input, void* target, size_t bytes) {
  for (size_t have = 0; have < bytes;) {
    const ssize_t got = read(input, static_cast<char*>(target) + have, bytes - have);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    have += static_cast<size_t>(got);
  }
  return true;
}

}  // namespace

bool NextFrame(int input, std::vector<uint32_t>* blocks) {
  uint32_t count;
  if (!ReadWhole(input, &count, sizeof count) || count > kBlocksMax) return false;
  blocks->resize(count);
  return ReadWhole(input, blocks->data(), count * sizeof(uint32_t));
}

}  // namespace readpages
