// The input of read-pages.
#pragma once

#include <cstdint>
#include <vector>

namespace readpages {

// Waits for a whole frame. False at the end of the input, or for one with more blocks than a hot blob has.
bool NextFrame(int input, std::vector<uint32_t>* blocks);

}  // namespace readpages
