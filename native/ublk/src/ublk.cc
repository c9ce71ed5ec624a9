// The kernel's ublk driver: block devices that a process serves through io_uring.
//
// Rules:
//   - Control sends commands and Queue moves requests. TypeScript decides, in src/blockdev/ublk.
//   - Wrong arguments throw: they are a bug of the caller. Errors of the kernel have the shape of Node's own,
//     { code, errno, syscall }, or are the -errno that a command ended with.
//   - Nothing waits. An open object belongs to its thread, and is closed with that thread's environment.

#include <napi.h>

#include "control.h"
#include "queue.h"

namespace {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("Control", Control::Class(env));
  exports.Set("Queue", Queue::Class(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(ublk, Init)
