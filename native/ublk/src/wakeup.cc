#include "wakeup.h"

#include <cerrno>
#include <cstdint>
#include <sys/eventfd.h>
#include <unistd.h>

int Wakeup::Open(napi_env env, void* owner, Call on_wake, Call on_end) {
  owner_ = owner;
  on_wake_ = on_wake;
  on_end_ = on_end;
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return -EINVAL;
  fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd_ < 0) return -errno;
  auto* poll = new uv_poll_t;
  const int failed = uv_poll_init(loop, poll, fd_);
  if (failed != 0) {
    delete poll;
    close(fd_);
    return failed;
  }
  poll_ = poll;
  poll_->data = this;
  Listen();
  Unref();
  napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle, void* wakeup) {
        auto* self = static_cast<Wakeup*>(wakeup);
        self->ending_ = true;
        self->on_end_(self->owner_);
      },
      this, &hook_);
  return 0;
}

void Wakeup::Drain() {
  uint64_t signals;
  while (read(fd_, &signals, sizeof signals) < 0 && errno == EINTR) {
  }
}

void Wakeup::Listen() {
  uv_poll_start(poll_, UV_READABLE, [](uv_poll_t* handle, int, int) {
    const auto* wakeup = static_cast<Wakeup*>(handle->data);
    wakeup->on_wake_(wakeup->owner_);
  });
}

void Wakeup::Start() {
  if (poll_ == nullptr) return;
  Listen();
  // What came meanwhile may have been drained already.
  const uint64_t signal = 1;
  while (write(fd_, &signal, sizeof signal) < 0 && errno == EINTR) {
  }
}

void Wakeup::Stop() {
  if (poll_ != nullptr) uv_poll_stop(poll_);
}

void Wakeup::Close() {
  if (poll_ == nullptr) return;
  uv_poll_stop(poll_);
  // libuv has let go of the descriptor with uv_poll_stop().
  close(fd_);
  // The environment waits for its hook to be removed; of one that has not been called, nothing must be left.
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
