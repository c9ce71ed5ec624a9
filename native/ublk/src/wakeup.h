// An eventfd that wakes the event loop of this thread.
#pragma once

#include <uv.h>

#include <napi.h>

// Closes with close(), or with the thread's environment, which then calls `on_end`. While it is open the object
// that has it must not go away.
class Wakeup {
 public:
  using Call = void (*)(void* owner);

  // 0, or -errno. It does not keep the loop alive until Ref().
  int Open(napi_env env, void* owner, Call on_wake, Call on_end);
  int fd() const { return fd_; }
  // Forgets the signals so far.
  void Drain();
  void Ref() { uv_ref(reinterpret_cast<uv_handle_t*>(poll_)); }
  void Unref() { uv_unref(reinterpret_cast<uv_handle_t*>(poll_)); }
  // No more calls of on_wake until Start(), which makes one; it stays open.
  void Stop();
  void Start();
  // Idempotent.
  void Close();

 private:
  void Listen();

  int fd_ = -1;
  uv_poll_t* poll_ = nullptr;
  void* owner_ = nullptr;
  Call on_wake_ = nullptr;
  Call on_end_ = nullptr;
  bool ending_ = false;
  napi_async_cleanup_hook_handle hook_ = nullptr;
};
