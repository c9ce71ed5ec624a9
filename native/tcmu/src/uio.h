// A TCMU device's /dev/uioN, polled on the event loop of the thread that opened it.
#pragma once

#include <napi.h>

#include "loop_poll.h"
#include "map.h"

// new Uio(path, sizeBytes, onReady)
//
// Opened and mapped until close(); one process at a time may (EBUSY). `sizeBytes` is what the kernel says in maps/map0/size.
//
//   ring   ArrayBuffer of the mailbox and the command ring, which close() empties
//
// onReady(0) says that the kernel has put commands into the ring since the last time; onReady(errno), once, that the
// device has been taken away.
//
//   scatter(iovecs, at, count, bytes, from, length)   bytes[from, from + length) to what the `count` iovecs at
//                                                     iovecs[at] name: a Uint8Array of the ring, or a copy
//   gather(iovecs, at, count, bytes, from, length)    and back; both false, with nothing copied, if the iovecs name
//                                                     less, or something outside the data area, or it is closed
//   kick()                                            tells the kernel that cmd_tail has moved
//
// A command's iovecs are of no use once it is completed.
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
