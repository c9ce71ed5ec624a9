// Reads that do not block the thread: of the page cache, at once (read_now.h); past the page cache, by the kernel's aio,
// which ends on the event loop (aio_queue.h).
//
// Rules:
//   - Memory is the caller's. Typed arrays are checked here: nothing outside them is read or written.
//   - The result of a read is a number, bytes or -errno, and allocates nothing. Wrong arguments throw.
//   - Nothing waits. src/io/resident-file.ts decides which way a read goes.

#include <napi.h>

#include "addon.h"
#include "aio_queue.h"
#include "read_now.h"

namespace {

// misalignment(bytes, unit): the address of `bytes` modulo `unit`.
Napi::Value Misalignment(const Napi::CallbackInfo& info) {
  const auto bytes = Elements<uint8_t>(info, 0, "bytes");
  const auto unit = static_cast<uintptr_t>(WholeNumber(info, 1, 1, 1 << 30, "unit"));
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  return Napi::Number::New(info.Env(), static_cast<double>(address % unit));
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("readNow", Napi::Function::New<ReadNow>(env, "readNow"));
  exports.Set("misalignment", Napi::Function::New<Misalignment>(env, "misalignment"));
  exports.Set("AioQueue", AioQueue::Class(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(node_libaio, Init)
