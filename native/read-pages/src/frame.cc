#include "frame.h"

#include <unistd.h>

#include <cerrno>

namespace readpages {

namespace {

// Pages of a hot blob: src/hot-blob/hot-index.ts.
constexpr uint32_t kBlocksMax = 32768;

// How many bytes there were, at most `bytes`.
size_t ReadUpTo(int input, void* target, size_t bytes) {
  size_t have = 0;
  while (have < bytes) {
    const ssize_t got = read(input, static_cast<char*>(target) + have, bytes - have);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    have += static_cast<size_t>(got);
  }
  return have;
}

}  // namespace

Input NextFrame(int input, std::vector<uint32_t>* blocks) {
  uint32_t count;
  const size_t head = ReadUpTo(input, &count, sizeof count);
  if (head == 0) return Input::kEnd;
  if (head < sizeof count || count > kBlocksMax) return Input::kWrong;
  blocks->resize(count);
  const size_t bytes = count * sizeof(uint32_t);
  return ReadUpTo(input, blocks->data(), bytes) == bytes ? Input::kFrame : Input::kWrong;
}

}  // namespace readpages
