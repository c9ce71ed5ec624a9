// Reads that the page cache answers, or nobody does.
#pragma once

#include <napi.h>

// readNow(fd, target, position, length, offset): bytes read, or -errno.
Napi::Value ReadNow(const Napi::CallbackInfo& info);

// readNowEach(count, fds, offsets, positions, lengths, target, results): as many reads in one call.
void ReadNowEach(const Napi::CallbackInfo& info);
