// A file descriptor, and an eventfd, polled by the event loop of one thread.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>
#include <cstdint>

#include <napi.h>

// Polls a descriptor for reading, until Close() or the end of the thread's environment. Not thread-safe. Its owner must
// outlive it: an ObjectWrap keeps a reference of itself while this is open.
class LoopPoll {
 public:
  using Call = void (*)(void* owner);

  // Takes `fd`, also when it fails. Returns 0 or -errno. The poll does not keep the loop alive until Ref().
  // `on_end` is called at the end of the environment and must call Close(), by then or before.
  int Open(napi_env env, int fd, void* owner, Call on_readable, Call on_end) {
    uv_loop_t* loop = nullptr;
    auto* poll = new uv_poll_t;
    int failed = napi_get_uv_event_loop(env, &loop) == napi_ok ? 0 : -EINVAL;
    if (failed == 0) failed = uv_poll_init(loop, poll, fd);
    if (failed != 0) {
      delete poll;
      close(fd);
      return failed;
    }
    fd_ = fd;
    poll_ = poll;
    poll_->data = this;
    owner_ = owner;
    on_readable_ = on_readable;
    on_end_ = on_end;
    Start();
    Unref();
    napi_add_async_cleanup_hook(
        env,
        [](napi_async_cleanup_hook_handle, void* poll) {
          auto* self = static_cast<LoopPoll*>(poll);
          self->ending_ = true;
          self->on_end_(self->owner_);
        },
        this, &hook_);
    return 0;
  }

  bool IsOpen() const { return poll_ != nullptr; }
  // -1 unless it is open.
  int fd() const { return fd_; }
  // Whether the environment ends, so that no JavaScript runs any more.
  bool IsEnding() const { return ending_; }
  void Ref() { uv_ref(reinterpret_cast<uv_handle_t*>(poll_)); }
  void Unref() { uv_unref(reinterpret_cast<uv_handle_t*>(poll_)); }

  void Start() {
    if (poll_ == nullptr) return;
    uv_poll_start(poll_, UV_READABLE, [](uv_poll_t* handle, int, int) {
      const auto* self = static_cast<LoopPoll*>(handle->data);
      self->on_readable_(self->owner_);
    });
  }

  // No more calls of on_readable until Start(). The descriptor stays open.
  void Stop() {
    if (poll_ != nullptr) uv_poll_stop(poll_);
  }

  // Closes the descriptor. Idempotent.
  void Close() {
    if (poll_ == nullptr) return;
    // libuv no longer uses the descriptor after uv_poll_stop().
    uv_poll_stop(poll_);
    close(fd_);
    fd_ = -1;
    // The environment ends when its called hooks are removed, after uv_close(). A hook that was not called must not
    // stay.
    if (!ending_) napi_remove_async_cleanup_hook(hook_);
    poll_->data = ending_ ? hook_ : nullptr;
    uv_close(reinterpret_cast<uv_handle_t*>(poll_), [](uv_handle_t* handle) {
      if (handle->data != nullptr) {
        napi_remove_async_cleanup_hook(static_cast<napi_async_cleanup_hook_handle>(handle->data));
      }
      delete reinterpret_cast<uv_poll_t*>(handle);
    });
    poll_ = nullptr;
  }

 private:
  int fd_ = -1;
  uv_poll_t* poll_ = nullptr;
  void* owner_ = nullptr;
  Call on_readable_ = nullptr;
  Call on_end_ = nullptr;
  bool ending_ = false;
  napi_async_cleanup_hook_handle hook_ = nullptr;
};

// An eventfd that wakes the event loop: the kernel signals it when work has ended.
class Wakeup : public LoopPoll {
 public:
  // As LoopPoll::Open().
  int Open(napi_env env, void* owner, Call on_wake, Call on_end) {
    const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) return -errno;
    return LoopPoll::Open(env, fd, owner, on_wake, on_end);
  }

  // Resets the signals so far.
  void Drain() {
    uint64_t signals;
    while (read(fd(), &signals, sizeof signals) < 0 && errno == EINTR) {
    }
  }

  // Undoes Stop(), and signals once: signals during the stop may have been drained.
  void Resume() {
    if (!IsOpen()) return;
    Start();
    const uint64_t signal = 1;
    while (write(fd(), &signal, sizeof signal) < 0 && errno == EINTR) {
    }
  }
};
