// Control commands of the ublk driver. Each ends in a callback.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include <napi.h>

#include "loop_poll.h"
#include "ring.h"

// new Control(path, onDone)
//
// `path` is /dev/ublk-control. Commands run in kernel threads, since some of them wait for the very thread that sent
// them: no call here waits, and none uses a thread of libuv's pool. When a command ends, onDone(token, result) is called
// on the loop: the result is 0 or -errno. onDone must not throw.
//
// It is open as long as the thread's environment, and keeps the loop alive while a command is in flight. The end of the
// environment cancels commands in flight. The memory that the kernel may still write to is not freed.
class Control : public Napi::ObjectWrap<Control> {
 public:
  static Napi::Function Class(Napi::Env env);
  explicit Control(const Napi::CallbackInfo& info);

 private:
  struct Command {
    // The kernel reads and writes this copy, since the caller's array may be freed.
    std::vector<uint8_t> payload;
    Napi::Reference<Napi::Uint8Array> target;
  };

  // submit(token, operation, command, payload): `command` is a struct ublksrv_ctrl_cmd without the address of its
  // payload. The kernel's output replaces the content of `payload`.
  void Submit(const Napi::CallbackInfo& info);
  void Reap();
  void End();

  napi_env env_;
  Ring ring_;
  Wakeup wakeup_;
  int fd_ = -1;
  std::unordered_map<uint32_t, Command*> commands_;
  Napi::FunctionReference on_done_;
  Napi::AsyncContext async_context_;
};
