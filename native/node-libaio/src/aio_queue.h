// The kernel's aio on the event loop: reads that are submitted together, and end in a callback.
#pragma once

#include <linux/aio_abi.h>

#include <cstdint>
#include <vector>

#include <napi.h>

#include "loop_poll.h"

// new AioQueue(depth, memory, onDone)
//
// Reads fill `memory`, which the queue keeps alive. At most `depth` are under way. For each that ends,
// onDone(tag, result) is called on the loop: bytes read, or -errno. It must not throw.
//
// Only a read past the page cache (O_DIRECT) is asynchronous: of any other descriptor the kernel reads
// before submit() returns. Each carries RWF_NOWAIT, so one that would wait while being submitted - for
// dirty pages of its range, or for room in the disk's queue - ends in EAGAIN instead.
//
// The queue keeps the loop alive while a read is under way. When the thread's environment ends, what is
// under way is waited for, since the kernel writes into the memory until then.
class AioQueue : public Napi::ObjectWrap<AioQueue> {
 public:
  static Napi::Function Class(Napi::Env env);
  explicit AioQueue(const Napi::CallbackInfo& info);

 private:
  // submit(count, fds, offsets, positions, lengths, tags): how many were taken, from the first on; or
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
