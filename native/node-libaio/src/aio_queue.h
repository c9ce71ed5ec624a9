// The kernel's aio on the event loop: reads are submitted together, and each ends in a callback.
#pragma once

#include <linux/aio_abi.h>

#include <cstdint>
#include <vector>

#include <napi.h>

#include "loop_poll.h"

// new AioQueue(depth, memory, onDone)
//
// Reads fill `memory`, which the queue keeps alive. At most `depth` reads are in flight. When a read ends, the queue calls
// onDone(tag, result) on the loop: bytes read, or -errno. onDone must not throw.
//
// Only reads past the page cache (O_DIRECT) are asynchronous; other descriptors are read before submit() returns. Each read
// carries RWF_NOWAIT: where its submission would wait - for dirty pages of its range, or for room in the disk's
// queue - it ends in EAGAIN instead.
//
// The queue keeps the loop alive while a read is in flight. The end of the thread's environment waits for the reads in
// flight, because the kernel writes to the memory until they end.
class AioQueue : public Napi::ObjectWrap<AioQueue> {
 public:
  static Napi::Function Class(Napi::Env env);
  explicit AioQueue(const Napi::CallbackInfo& info);

 private:
  // submit(count, fds, offsets, positions, lengths, tags): returns how many reads were submitted, from the first on, or
  // -errno if none was.
  Napi::Value Submit(const Napi::CallbackInfo& info);
  void Reap();
  void Close();

  napi_env env_;
  aio_context_t context_ = 0;
  Wakeup wakeup_;
  size_t depth_;
  size_t pending_ = 0;
  std::vector<iocb> blocks_;
  std::vector<iocb*> pointers_;
  std::vector<io_event> events_;
  Napi::Reference<Napi::Uint8Array> memory_;
  uint8_t* data_;
  size_t bytes_;
  Napi::FunctionReference on_done_;
  Napi::AsyncContext async_context_;
};
