// Reads of the page cache alone, which never wait for a disk.
#pragma once

#include <napi.h>

// readNow(fd, target, position, length, offset): bytes read, or -errno.
Napi::Value ReadNow(const Napi::CallbackInfo& info);

// readNowEach(count, fds, offsets, positions, lengths, target, results): `count` such reads in one call.
void ReadNowEach(const Napi::CallbackInfo& info);
