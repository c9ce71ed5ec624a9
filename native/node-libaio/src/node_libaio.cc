// Reads that do not wait: what the page cache has, at once (read_now.h); what it lacks, by the kernel's
// aio past the page cache, ending on the event loop (aio_queue.h).
//
// Rules:
//   - Memory is the caller's and typed arrays are checked here: nothing outside them is read or written.
//   - What a disk says is an answer, bytes or -errno, and allocates nothing; arguments that make no sense
//     throw.
//   - Nothing waits. No policy: when to read how is decided in src/io/resident-file.ts.

#include <napi.h>

#include "aio_queue.h"
#include "read_columns.h"
#include "read_now.h"

namespace {

// misalignment(bytes, unit): how far the start of `bytes` is past a multiple of `unit` in memory.
Napi::Value Misalignment(const Napi::CallbackInfo& info) {
  const auto bytes = Elements<uint8_t>(info, 0, "bytes");
  const auto unit = static_cast<uintptr_t>(WholeNumber(info, 1, 1, 1 << 30, "unit"));
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  return Napi::Number::New(info.Env(), static_cast<double>(address % unit));
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("readNow", Napi::Function::New<ReadNow>(env, "readNow"));
  exports.Set("readNowEach", Napi::Function::New<ReadNowEach>(env, "readNowEach"));
  exports.Set("misalignment", Napi::Function::New<Misalignment>(env, "misalignment"));
  exports.Set("AioQueue", AioQueue::Class(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(node_libaio, Init)
