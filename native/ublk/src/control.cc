#include "control.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include "addon.h"

namespace {

// Limit for commands in flight. One thread never starts so many devices at once.
constexpr unsigned kEntries = 256;
constexpr size_t kCommandBytes = 32;
constexpr size_t kCommandLengthAt = 6;
constexpr size_t kCommandAddressAt = 8;
constexpr size_t kPayloadBytesMax = 4096;

}  // namespace

Napi::Function Control::Class(Napi::Env env) {
  return DefineClass(env, "Control", {InstanceMethod<&Control::Submit>("submit")});
}

Control::Control(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<Control>(info), env_(info.Env()), async_context_(info.Env(), "UblkControl") {
  const Napi::Env env = info.Env();
  const std::string path = Text(info[0], "path");
  on_done_ = Napi::Persistent(Callback(info, 1, "onDone"));
  int failed = ring_.Open(kEntries, IORING_SETUP_SQE128);
  if (failed != 0) throw SystemError(env, "io_uring_setup", -failed);
  fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd_ < 0) throw SystemError(env, "open", errno);
  failed = wakeup_.Open(
      env_, this, [](void* self) { static_cast<Control*>(self)->Reap(); },
      [](void* self) { static_cast<Control*>(self)->End(); });
  if (failed == 0) {
    // Keeps this object until the environment ends.
    Ref();
    failed = ring_.Register(wakeup_.fd());
  }
  if (failed != 0) {
    End();
    throw SystemError(env, "eventfd", -failed);
  }
}

void Control::Submit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto token = Unsigned<uint32_t>(info, 0, UINT32_MAX, "token");
  const auto operation = Unsigned<uint32_t>(info, 1, UINT32_MAX, "operation");
  const auto command = Elements<uint8_t>(info, 2, "command");
  const auto payload = ByteArray(info, 3, "payload");
  if (command.size() != kCommandBytes) throw Napi::RangeError::New(env, "command");
  if (payload.ByteLength() > kPayloadBytesMax) throw Napi::RangeError::New(env, "payload");
  if (commands_.contains(token)) throw Napi::RangeError::New(env, "token");
  if (fd_ < 0) throw SystemError(env, "io_uring_enter", EBADF);
  if (commands_.size() == kEntries) throw SystemError(env, "io_uring_enter", EBUSY);

  auto* kept = new Command{{payload.Data(), payload.Data() + payload.ByteLength()},
                           Napi::Persistent(payload)};
  commands_[token] = kept;
  io_uring_sqe* sqe = ring_.Next();
  sqe->opcode = IORING_OP_URING_CMD;
  // Has a kernel thread run it: the driver would refuse to run it in this one.
  sqe->flags = IOSQE_ASYNC;
  sqe->fd = fd_;
  sqe->cmd_op = operation;
  sqe->user_data = token;
  memcpy(sqe->cmd, command.data(), kCommandBytes);
  const auto length = static_cast<uint16_t>(kept->payload.size());
  const auto address = length == 0 ? 0 : reinterpret_cast<uint64_t>(kept->payload.data());
  memcpy(sqe->cmd + kCommandLengthAt, &length, sizeof length);
  memcpy(sqe->cmd + kCommandAddressAt, &address, sizeof address);
  if (commands_.size() == 1) wakeup_.Ref();
  // A command that is not submitted now is submitted with the next one.
  const int failed = ring_.Enter();
  if (failed != 0) throw SystemError(env, "io_uring_enter", -failed);
}

void Control::Reap() {
  const Napi::Env env(env_);
  const Napi::HandleScope scope(env);
  wakeup_.Drain();
  uint64_t token;
  int32_t result;
  while (fd_ >= 0 && ring_.Take(&token, &result)) {
    const auto found = commands_.find(static_cast<uint32_t>(token));
    Command* command = found->second;
    commands_.erase(found);
    if (commands_.empty()) wakeup_.Unref();
    auto target = command->target.Value();
    memcpy(target.Data(), command->payload.data(),
           std::min(command->payload.size(), target.ByteLength()));
    delete command;
    CallBack(on_done_,
             {Napi::Number::New(env, static_cast<double>(token)), Napi::Number::New(env, result)},
             async_context_);
  }
}

void Control::End() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  ring_.Close();
  wakeup_.Close();
}
