// The ublk driver of the kernel, which makes block devices that a process serves, by io_uring.
//
// Rules:
//   - Control gives commands and Queue moves requests: what to do with either is TypeScript's, in src/blockdev/ublk.
//   - Arguments that make no sense throw, for they are a bug of the caller. What the kernel refuses is an Error in
//     Node's own shape, { code, errno, syscall }, or the -errno that a command ended with.
//   - Nothing waits. What is open belongs to a thread, and ends with its environment.

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
