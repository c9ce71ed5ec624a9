// The input of read-pages.
#pragma once

#include <cstdint>
#include <vector>

namespace readpages {

enum class Input { kFrame, kEnd, kWrong };

// Waits for a whole frame. `kWrong` for one that is cut, or has more blocks than a hot blob.
Input NextFrame(int input, std::vector<uint32_t>* blocks);

}  // namespace readpages
