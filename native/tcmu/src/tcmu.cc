// A TCMU device as user space has it: a file that is polled, and memory shared with the kernel.
//
// Rules:
//   - System calls and copies: what is in the ring is TypeScript's to read, in src/blockdev/tcmu.
//   - Arguments that make no sense throw, for they are a bug of the caller. What the kernel refuses is an Error in
//     Node's own shape, { code, errno, syscall }.
//   - The data area is no ArrayBuffer: the kernel takes its pages back, and touching one then ends the process.
//   - Nothing waits. What is open belongs to a thread, and ends with its environment.

#include <napi.h>

#include "uio.h"

namespace {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("Uio", Uio::Class(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(tcmu, Init)
