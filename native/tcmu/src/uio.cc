#include "uio.h"

#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

#include "addon.h"

namespace {

constexpr double kSizeBytesMax = 1LL << 40;
constexpr size_t kIovecBytes = 16;

// The arguments of scatter() and gather().
struct Copy {
  explicit Copy(const Napi::CallbackInfo& info) {
    const auto ring = Elements<uint8_t>(info, 0, "iovecs");
    const auto room = static_cast<double>(ring.size());
    const auto at = Unsigned<size_t>(info, 1, room, "at");
    count = Unsigned<size_t>(info, 2, (room - static_cast<double>(at)) / kIovecBytes, "count");
    iovecs = ring.data() + at;
    const auto target = Elements<uint8_t>(info, 3, "bytes");
    const auto size = static_cast<double>(target.size());
    const auto from = Unsigned<size_t>(info, 4, size, "from");
    length = Unsigned<size_t>(info, 5, size - static_cast<double>(from), "length");
    bytes = target.data() + from;
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
  const std::string path = Text(info[0], "path");
  const auto bytes = static_cast<size_t>(WholeNumber(info, 1, 1, kSizeBytesMax, "sizeBytes"));
  on_ready_ = Napi::Persistent(Callback(info, 2, "onReady"));

  const int fd = open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) throw SystemError(env, "open", errno);
  int failed = map_.Open(fd, bytes);
  if (failed != 0) {
    close(fd);
    throw SystemError(env, "mmap", -failed);
  }
  failed = poll_.Open(
      env_, fd, this, [](void* uio) { static_cast<Uio*>(uio)->Wake(); },
      [](void* uio) { static_cast<Uio*>(uio)->Close(); });
  if (failed != 0) {
    map_.Close();
    throw SystemError(env, "epoll_ctl", -failed);
  }
  // It keeps the loop alive, and the poll keeps this object, until Close().
  poll_.Ref();
  Ref();
  auto ring = Napi::ArrayBuffer::New(env, map_.base(), map_.ring_bytes(), [](Napi::Env, void*) {});
  ring_ = Napi::Persistent(ring);
  info.This().As<Napi::Object>().Set("ring", ring);
}

void Uio::Wake() {
  uint32_t events;
  ssize_t size;
  do {
    size = read(poll_.fd(), &events, sizeof events);
  } while (size < 0 && errno == EINTR);
  if (size < 0 && errno == EAGAIN) return;
  const int number = size < 0 ? errno : 0;
  if (number != 0) poll_.Stop();
  const Napi::Env env(env_);
  const Napi::HandleScope scope(env);
  CallBack(on_ready_, {Napi::Number::New(env, number)}, async_context_);
}

Napi::Value Uio::Scatter(const Napi::CallbackInfo& info) {
  const Copy copy(info);
  const bool done = poll_.IsOpen() && map_.Scatter(copy.iovecs, copy.count, copy.bytes, copy.length);
  return Napi::Boolean::New(info.Env(), done);
}

Napi::Value Uio::Gather(const Napi::CallbackInfo& info) {
  const Copy copy(info);
  const bool done = poll_.IsOpen() && map_.Gather(copy.iovecs, copy.count, copy.bytes, copy.length);
  return Napi::Boolean::New(info.Env(), done);
}

void Uio::Kick(const Napi::CallbackInfo& info) {
  if (!poll_.IsOpen()) return;
  const uint32_t any = 0;
  ssize_t size;
  do {
    size = write(poll_.fd(), &any, sizeof any);
  } while (size < 0 && errno == EINTR);
  // A removed device waits for no answers. The poll reports the removal.
  if (size < 0 && errno != EIO) throw SystemError(info.Env(), "write", errno);
}

void Uio::CloseFromScript(const Napi::CallbackInfo&) { Close(); }

void Uio::Close() {
  if (!poll_.IsOpen()) return;
  // At the end of the environment no JavaScript is left that could read it.
  if (!poll_.IsEnding()) ring_.Value().Detach();
  map_.Close();
  poll_.Close();
  Unref();
}
