// The only hardware queue of a ublk device, served on the event loop of the thread that made this object.
#pragma once

#include <cstdint>
#include <vector>

#include <napi.h>

#include "loop_poll.h"
#include "ring.h"

// new Queue(path, depth, ioBytesMax, onReady, onStopped)
//
// `path` is the device's /dev/ublkcN, which is open until close(); depth and ioBytesMax are the device's own. The
// constructor fetches the requests of all tags at once, so that the device can be started afterwards. It does so without
// CAP_SYS_ADMIN: the driver scans for partitions only if its server is privileged. That scan reads the device, with the
// driver's mutex held, while it is started, and a server that dies during the scan would leave the mutex held for ever.
//
//   memory   ArrayBuffer: [i * ioBytesMax, (i + 1) * ioBytesMax) has the data of tag i, for reads and writes
//   ready    Float64Array: kReadyColumns for each request: tag, op and flags, sectors, first sector
//   answers  Int32Array: two for each answer: tag, and bytes or -errno
//
// onReady(count): the first `count` rows of `ready` are requests. The callee answers them in any order and at any time,
// by commit(count) with that many rows of `answers`. onStopped() is called once, when the kernel has taken the last tag
// back: the device was stopped.
//
// leave() stops answering until resume(); the callee still has to answer the requests that it has by then. close() gives
// up unanswered requests, so that another process or thread can answer them; afterwards the arrays must not be used.
// Linux 6.12 loses a request that arrives while it takes the others back, and with it the device, unless the thread which
// served them is dead. So a queue in use is left, and closed when its thread or its process has ended; only a queue that is
// stopped or was never started is closed earlier. (With IORING_SETUP_DEFER_TASKRUN the request is lost even when the thread
// is dead.)
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
