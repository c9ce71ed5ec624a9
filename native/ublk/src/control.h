// Control commands of the ublk driver, each of which ends in a callback.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include <napi.h>

#include "loop_poll.h"
#include "ring.h"

// new Control(path, onDone)
//
// `path` is /dev/ublk-control. Commands run in threads of the kernel, since some of them wait for the very thread
// that gives them: no call here waits, and none takes a thread of libuv's pool. When one ends, onDone(token, result)
// is called on the loop: the result is 0 or -errno. It must not throw.
//
// It is open as long as the thread's environment, and keeps the loop alive while a command is under way. What is under
// way when the environment ends is cancelled; the memory that the kernel may still write to is left to the process.
class Control : public Napi::ObjectWrap<Control> {
 public:
  static Napi::Function Class(Napi::Env env);
  explicit Control(const Napi::CallbackInfo& info);

 private:
  struct Command {
    // What the kernel reads and writes, in place of the caller's array, which may go away.
    std::vector<uint8_t> payload;
    Napi::Reference<Napi::Uint8Array> target;
  };

  // submit(token, operation, command, payload): `command` is a struct ublksrv_ctrl_cmd without the address of its
  // payload, which is replaced by what the kernel makes of it.
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
