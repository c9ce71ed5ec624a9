// The one hardware queue of a ublk device, served on the event loop of the thread that made it.
#pragma once

#include <cstdint>
#include <vector>

#include <napi.h>

#include "loop_poll.h"
#include "ring.h"

// new Queue(path, depth, ioBytesMax, onReady, onStopped)
//
// `path` is the device's /dev/ublkcN, which is open until close(); depth and ioBytesMax are the device's own. The
// kernel's requests are fetched for all tags at once, so that the device may be started from then on; that is done
// without CAP_SYS_ADMIN, because the driver looks for partitions - reads the device, with its own mutex held, while it is
// started - only if its server is privileged: a server that dies in between would leave that mutex held for ever.
//
//   memory   ArrayBuffer: tag i has [i * ioBytesMax, (i + 1) * ioBytesMax), for what is read and what is to be written
//   ready    Float64Array: kReadyColumns for each request: tag, op and flags, sectors, first sector
//   answers  Int32Array: two for each answer: tag, and bytes or -errno
//
// onReady(count) says that the first `count` rows of `ready` are requests; they are the callee's to answer, in any order
// and at any time, with commit(count) of as many rows of `answers`. onStopped() is called once when the kernel has
// taken the last tag back: the device was stopped.
//
// leave() answers no more, until resume(); what was handed over is still the callee's to answer then. close() gives up what
// is unanswered, so that another process, or thread, can have it; then the arrays are of no use. Linux 6.12 loses a
// request, and with it the device, that arrives in the moment in which it takes the others back, unless the thread which
// served them is dead. So a queue that others may be using is left, and closed when its thread or its process has ended;
// only one that is stopped or was never started is closed before. (IORING_SETUP_DEFER_TASKRUN would lose it even when the thread is dead.)
class Queue : public Napi::ObjectWrap<Queue> {
 public:
  static Napi::Function Class(Napi::Env env);
  explicit Queue(const Napi::CallbackInfo& info);

 private:
  enum class Tag : uint8_t { kKernels, kOurs, kGone };

  void Commit(const Napi::CallbackInfo& info);
  void Leave(const Napi::CallbackInfo& info);
  void Resume(const Napi::CallbackInfo& info);
  void CloseFromScript(const Napi::CallbackInfo& info);

  int Fetch();
  void Push(uint32_t operation, uint32_t tag, int32_t result);
  void Wake();
  uint32_t Gather();
  void Call(const Napi::FunctionReference& function, uint32_t count);
  void Close();
  void CloseAfterThread();
  void LetGo();

  napi_env env_;
  uint32_t depth_;
  size_t io_bytes_max_;
  Ring ring_;
  Wakeup wakeup_;
  int fd_ = -1;
  bool left_ = false;
  bool held_ = false;
  uint8_t* memory_ = nullptr;
  const uint8_t* descriptors_ = nullptr;
  size_t descriptors_bytes_ = 0;
  std::vector<Tag> tags_;
  uint32_t gone_ = 0;
  Napi::Reference<Napi::Float64Array> ready_;
  Napi::Reference<Napi::Int32Array> answers_;
  Napi::FunctionReference on_ready_;
  Napi::FunctionReference on_stopped_;
  Napi::AsyncContext async_context_;
};
