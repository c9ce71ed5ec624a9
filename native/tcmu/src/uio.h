// A TCMU device's /dev/uioN, polled on the event loop of the thread that opened it.
#pragma once

#include <napi.h>

#include "loop_poll.h"
#include "map.h"

// new Uio(path, sizeBytes, onReady)
//
// The device is open and mapped until close(). Only one process at a time can open it (EBUSY). `sizeBytes` is the kernel's
// figure in maps/map0/size.
//
//   ring   ArrayBuffer of the mailbox and the command ring; close() detaches it
//
// onReady(0): the kernel has put commands into the ring since the last call. onReady(errno), once: the device was removed.
//
//   scatter(iovecs, at, count, bytes, from, length)   copies bytes[from, from + length) to the ranges of the `count` iovecs
//                                                     at iovecs[at], a Uint8Array of the ring or a copy
//   gather(iovecs, at, count, bytes, from, length)    copies back; both return false, with nothing copied, if the iovecs are
//                                                     shorter, or name a range outside the data area, or it is closed
//   kick()                                            tells the kernel that cmd_tail has moved
//
// A command's iovecs are invalid once the command is completed.
class Uio : public Napi::ObjectWrap<Uio> {
 public:
  static Napi::Function Class(Napi::Env env);
  explicit Uio(const Napi::CallbackInfo& info);

 private:
  Napi::Value Scatter(const Napi::CallbackInfo& info);
  Napi::Value Gather(const Napi::CallbackInfo& info);
  void Kick(const Napi::CallbackInfo& info);
  void CloseFromScript(const Napi::CallbackInfo& info);

  void Wake();
  void Close();

  napi_env env_;
  LoopPoll poll_;
  Map map_;
  Napi::Reference<Napi::ArrayBuffer> ring_;
  Napi::FunctionReference on_ready_;
  Napi::AsyncContext async_context_;
};
