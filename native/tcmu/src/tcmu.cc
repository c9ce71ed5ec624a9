// The user-space side of a TCMU device: a file that is polled, and memory shared with the kernel.
//
// Rules:
//   - System calls and copies only: TypeScript reads the ring, in src/blockdev/tcmu.
//   - Wrong arguments throw: they are a bug of the caller. Errors of the kernel have the shape of Node's own,
//     { code, errno, syscall }.
//   - The data area is no ArrayBuffer: the kernel takes its pages back, and touching one then ends the process.
//   - Nothing waits. A device belongs to the thread that opened it, and is closed with that thread's environment.

#include <napi.h>

#include "uio.h"

namespace {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("Uio", Uio::Class(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(tcmu, Init)
