#include "uio.h"

#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

#include "addon.h"

namespace {

constexpr double kSizeBytesMax = 1LL << 40;
constexpr size_t kIovecBytes = 16;

// What scatter() and gather() are given.
struct Copy {
  explicit Copy(const Napi::CallbackInfo& info) {
    auto iovecs_array = TypedArray<Napi::Uint8Array>(info, 0, napi_uint8_array, "iovecs");
    const auto room = static_cast<double>(iovecs_array.ByteLength());
    const size_t at = WholeNumber(info, 1, 0, room, "at");
    count = WholeNumber(info, 2, 0, (room - static_cast<double>(at)) / kIovecBytes, "count");
    iovecs = iovecs_array.Data() + at;
    auto bytes_array = TypedArray<Napi::Uint8Array>(info, 3, napi_uint8_array, "bytes");
    const auto size = static_cast<double>(bytes_array.ByteLength());
    const size_t from = WholeNumber(info, 4, 0, size, "from");
    length = WholeNumber(info, 5, 0, size - static_cast<double>(from), "length");
    bytes = bytes_array.Data() + from;
  }
  const uint8_t* iovecs;
  size_t count;
  uint8_t* bytes;
  size_t length;
};

}  // namespace

Napi::Function Uio::Class(Napi::Env env) {
  return DefineClass(env, "Uio",
                     {InstanceMethod<&Uio::Scatter>("scatter"),
                      InstanceMethod<&Uio::Gather>("gather"), InstanceMethod<&Uio::Kick>("kick"),
                      InstanceMethod<&Uio::CloseFromScript>("close")});
}

Uio::Uio(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<Uio>(info), env_(info.Env()), async_context_(info.Env(), "TcmuUio") {
  const Napi::Env env = info.Env();
  if (!info[0].IsString()) throw Napi::TypeError::New(env, "path");
  const std::string path = info[0].As<Napi::String>();
  const size_t bytes = WholeNumber(info, 1, 1, kSizeBytesMax, "sizeBytes");
  if (!info[2].IsFunction()) throw Napi::TypeError::New(env, "onReady");
  on_ready_ = Napi::Persistent(info[2].As<Napi::Function>());

  fd_ = open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd_ < 0) throw SystemError(env, "open", errno);
  const char* what = "mmap";
  int failed = map_.Open(fd_, bytes);
  if (failed == 0) {
    what = "epoll_ctl";
    failed = Poll();
  }
  if (failed != 0) {
    map_.Close();
    close(fd_);
    fd_ = -1;
    throw SystemError(env, what, -failed);
  }
  auto ring = Napi::ArrayBuffer::New(env, map_.base(), map_.ring_bytes(), [](Napi::Env, void*) {});
  ring_ = Napi::Persistent(ring);
  info.This().As<Napi::Object>().Set("ring", ring);
}

int Uio::Poll() {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env_, &loop) != napi_ok) return -EINVAL;
  auto* poll = new uv_poll_t;
  const int failed = uv_poll_init(loop, poll, fd_);
  if (failed != 0) {
    delete poll;
    return failed;
  }
  poll_ = poll;
  poll_->data = this;
  uv_poll_start(poll_, UV_READABLE, [](uv_poll_t* handle, int, int) {
    static_cast<Uio*>(handle->data)->Wake();
  });
  napi_add_async_cleanup_hook(
      env_,
      [](napi_async_cleanup_hook_handle, void* uio) {
        auto* self = static_cast<Uio*>(uio);
        self->ending_ = true;
        self->Close();
      },
      this, &hook_);
  // As long as it is polled.
  Ref();
  return 0;
}

void Uio::Wake() {
  uint32_t events;
  ssize_t size;
  do {
    size = read(fd_, &events, sizeof events);
  } while (size < 0 && errno == EINTR);
  if (size < 0 && errno == EAGAIN) return;
  const int number = size < 0 ? errno : 0;
  if (number != 0) uv_poll_stop(poll_);
  const Napi::Env env(env_);
  const Napi::HandleScope scope(env);
  CallBack(on_ready_, {Napi::Number::New(env, number)}, async_context_);
}

Napi::Value Uio::Scatter(const Napi::CallbackInfo& info) {
  const Copy copy(info);
  const bool done = fd_ >= 0 && map_.Scatter(copy.iovecs, copy.count, copy.bytes, copy.length);
  return Napi::Boolean::New(info.Env(), done);
}

Napi::Value Uio::Gather(const Napi::CallbackInfo& info) {
  const Copy copy(info);
  const bool done = fd_ >= 0 && map_.Gather(copy.iovecs, copy.count, copy.bytes, copy.length);
  return Napi::Boolean::New(info.Env(), done);
}

void Uio::Kick(const Napi::CallbackInfo& info) {
  if (fd_ < 0) return;
  const uint32_t any = 0;
  ssize_t size;
  do {
    size = write(fd_, &any, sizeof any);
  } while (size < 0 && errno == EINTR);
  // A device that was taken away waits for no answers; the poll finds out.
  if (size < 0 && errno != EIO) throw SystemError(info.Env(), "write", errno);
}

void Uio::CloseFromScript(const Napi::CallbackInfo&) { Close(); }

void Uio::Close() {
  if (fd_ < 0) return;
  // At the end of the environment no script is left that could look at it.
  if (!ending_) ring_.Value().Detach();
  map_.Close();
  uv_poll_stop(poll_);
  close(fd_);
  fd_ = -1;
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
  Unref();
}
