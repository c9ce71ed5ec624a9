// Reads of the page cache alone, which never wait for a disk.
#pragma once

#include <napi.h>

// readNow(fd, target, position, length, offset): bytes read, or -errno.
Napi::Value ReadNow(const Napi::CallbackInfo& info);
