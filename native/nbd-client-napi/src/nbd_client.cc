// The kernel's nbd driver by generic netlink, and the sockets it is given.
//
//   connect({sockets, sizeBytes, blockSize, serverFlags, clientFlags, timeoutSeconds,
//            deadConnTimeoutSeconds, backendIdentifier, index?})       -> Promise<index>
//   reconfigure({index, sockets, timeoutSeconds?, deadConnTimeoutSeconds?, backendIdentifier,
//                sizeBytes?})                                          -> Promise<void>
//   disconnect(index)                                                  -> Promise<void>
//   status(index?)                                -> Promise<[{index, connected}, ...]>
//   socketPair() -> [fd, fd]     close(fd)     isHungUp(fd) -> whether its peer is closed
//
// Rules:
//   - Wrong arguments throw a TypeError or RangeError: they are a bug of the caller.
//   - Errors of the kernel have the shape of Node's own (code, errno, syscall) and the kernel's
//     message, if any. ENOENT: there is no family "nbd".
//   - The kernel does the work of a request inside the call, so requests run in the thread pool.
//     The caller keeps every fd: the kernel takes further references.

#include <fcntl.h>
#include <linux/nbd-netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <napi.h>

#include "addon.h"
#include "genetlink.h"

namespace {

using genetlink::Attributes;

// More than any server uses, and far fewer than fit in one attribute.
constexpr uint32_t kSocketsMax = 64;
constexpr size_t kIdentifierBytesMax = 1024;

void PutIndex(Attributes& attributes, const Napi::Value& value) {
  attributes.U32(NBD_ATTR_INDEX, static_cast<uint32_t>(WholeNumber(value, 0, INT32_MAX, "index")));
}

void PutU64(Attributes& attributes, uint16_t type, const Napi::Object& options, const char* name) {
  const double value = WholeNumber(options.Get(name), 0, kSafeIntegerMax, name);
  attributes.U64(type, static_cast<uint64_t>(value));
}

void PutU64IfAny(Attributes& attributes, uint16_t type, const Napi::Object& options,
                 const char* name) {
  if (!options.Get(name).IsUndefined()) PutU64(attributes, type, options, name);
}

void PutSockets(Attributes& attributes, const Napi::Object& options) {
  const Napi::Value value = options.Get("sockets");
  if (!value.IsArray()) throw Napi::TypeError::New(options.Env(), "sockets");
  const auto sockets = value.As<Napi::Array>();
  if (sockets.Length() > kSocketsMax) throw Napi::RangeError::New(options.Env(), "sockets");
  if (sockets.Length() == 0) return;
  const size_t list = attributes.Begin(NBD_ATTR_SOCKETS);
  for (uint32_t i = 0; i < sockets.Length(); i++) {
    const size_t item = attributes.Begin(NBD_SOCK_ITEM);
    const double fd = WholeNumber(sockets.Get(i), 0, INT32_MAX, "sockets");
    attributes.U32(NBD_SOCK_FD, static_cast<uint32_t>(fd));
    attributes.End(item);
  }
  attributes.End(list);
}

void PutIdentifier(Attributes& attributes, const Napi::Object& options) {
  const std::string text = Text(options.Get("backendIdentifier"), "backendIdentifier");
  if (text.empty() || text.size() > kIdentifierBytesMax) {
    throw Napi::RangeError::New(options.Env(), "backendIdentifier");
  }
  attributes.String(NBD_ATTR_BACKEND_IDENTIFIER, text);
}

using Answer = std::function<Napi::Value(Napi::Env, const std::vector<uint8_t>&)>;

// One request in the thread pool, and the promise of its answer.
class Request : public Napi::AsyncWorker {
 public:
  Request(Napi::Env env, uint8_t command, const char* what, Attributes attributes, Answer answer)
      : Napi::AsyncWorker(env, what),
        command_(command),
        what_(what),
        attributes_(std::move(attributes)),
        answer_(std::move(answer)),
        deferred_(Napi::Promise::Deferred::New(env)) {}

  Napi::Promise Start() {
    const Napi::Promise promise = deferred_.Promise();
    Queue();
    return promise;
  }

 protected:
  void Execute() override {
    try {
      reply_ = genetlink::Request(NBD_GENL_FAMILY_NAME, command_, attributes_, what_);
    } catch (const genetlink::Failure& failure) {
      failure_ = std::make_unique<genetlink::Failure>(failure);
      SetError(what_);
    }
  }

  void OnOK() override { deferred_.Resolve(answer_(Env(), reply_)); }

  void OnError(const Napi::Error& error) override {
    // Other exceptions, such as a lack of memory, keep their message.
    deferred_.Reject(failure_ ? SystemError(Env(), failure_->syscall, failure_->error,
                                            failure_->message).Value()
                              : error.Value());
  }

 private:
  const uint8_t command_;
  const char* const what_;
  const Attributes attributes_;
  const Answer answer_;
  const Napi::Promise::Deferred deferred_;
  std::vector<uint8_t> reply_;
  std::unique_ptr<genetlink::Failure> failure_;
};

Napi::Value Ask(Napi::Env env, uint8_t command, const char* what, Attributes attributes,
                Answer answer) {
  // An AsyncWorker deletes itself at its end.
  auto* request = new Request(env, command, what, std::move(attributes), std::move(answer));
  return request->Start();
}

Napi::Value Nothing(Napi::Env env, const std::vector<uint8_t>&) { return env.Undefined(); }

Napi::Object OptionsOf(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) throw Napi::TypeError::New(info.Env(), "options");
  return info[0].As<Napi::Object>();
}

Napi::Value Connect(const Napi::CallbackInfo& info) {
  const Napi::Object options = OptionsOf(info);
  Attributes attributes;
  if (!options.Get("index").IsUndefined()) PutIndex(attributes, options.Get("index"));
  PutU64(attributes, NBD_ATTR_SIZE_BYTES, options, "sizeBytes");
  PutU64(attributes, NBD_ATTR_BLOCK_SIZE_BYTES, options, "blockSize");
  PutU64(attributes, NBD_ATTR_TIMEOUT, options, "timeoutSeconds");
  PutU64(attributes, NBD_ATTR_SERVER_FLAGS, options, "serverFlags");
  PutU64(attributes, NBD_ATTR_CLIENT_FLAGS, options, "clientFlags");
  PutU64(attributes, NBD_ATTR_DEAD_CONN_TIMEOUT, options, "deadConnTimeoutSeconds");
  PutSockets(attributes, options);
  PutIdentifier(attributes, options);
  return Ask(info.Env(), NBD_CMD_CONNECT, "nbd connect", std::move(attributes),
             [](Napi::Env env, const std::vector<uint8_t>& reply) -> Napi::Value {
               for (const auto& each : genetlink::Parse(reply.data(), reply.size())) {
                 if (each.type == NBD_ATTR_INDEX) return Napi::Number::New(env, each.U32());
               }
               return env.Undefined();
             });
}

Napi::Value Reconfigure(const Napi::CallbackInfo& info) {
  const Napi::Object options = OptionsOf(info);
  Attributes attributes;
  PutIndex(attributes, options.Get("index"));
  PutU64IfAny(attributes, NBD_ATTR_SIZE_BYTES, options, "sizeBytes");
  PutU64IfAny(attributes, NBD_ATTR_TIMEOUT, options, "timeoutSeconds");
  PutU64IfAny(attributes, NBD_ATTR_DEAD_CONN_TIMEOUT, options, "deadConnTimeoutSeconds");
  PutSockets(attributes, options);
  PutIdentifier(attributes, options);
  return Ask(info.Env(), NBD_CMD_RECONFIGURE, "nbd reconfigure", std::move(attributes), Nothing);
}

Napi::Value Disconnect(const Napi::CallbackInfo& info) {
  Attributes attributes;
  PutIndex(attributes, info[0]);
  return Ask(info.Env(), NBD_CMD_DISCONNECT, "nbd disconnect", std::move(attributes), Nothing);
}

Napi::Value Status(const Napi::CallbackInfo& info) {
  Attributes attributes;
  if (!info[0].IsUndefined()) PutIndex(attributes, info[0]);
  return Ask(info.Env(), NBD_CMD_STATUS, "nbd status", std::move(attributes),
             [](Napi::Env env, const std::vector<uint8_t>& reply) -> Napi::Value {
               Napi::Array devices = Napi::Array::New(env);
               for (const auto& list : genetlink::Parse(reply.data(), reply.size())) {
                 if (list.type != NBD_ATTR_DEVICE_LIST) continue;
                 for (const auto& item : genetlink::Parse(list.data, list.length)) {
                   Napi::Object device = Napi::Object::New(env);
                   for (const auto& each : genetlink::Parse(item.data, item.length)) {
                     if (each.type == NBD_DEVICE_INDEX) {
                       device.Set("index", Napi::Number::New(env, each.U32()));
                     } else if (each.type == NBD_DEVICE_CONNECTED && each.length > 0) {
                       device.Set("connected", Napi::Boolean::New(env, each.data[0] != 0));
                     }
                   }
                   devices.Set(devices.Length(), device);
                 }
               }
               return devices;
             });
}

Napi::Value SocketPair(const Napi::CallbackInfo& info) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    throw SystemError(info.Env(), "socketpair", errno);
  }
  Napi::Array pair = Napi::Array::New(info.Env(), 2);
  pair.Set(0u, Napi::Number::New(info.Env(), fds[0]));
  pair.Set(1u, Napi::Number::New(info.Env(), fds[1]));
  return pair;
}

void Close(const Napi::CallbackInfo& info) {
  if (close(FileDescriptor(info, 0)) != 0) throw SystemError(info.Env(), "close", errno);
}

Napi::Value IsHungUp(const Napi::CallbackInfo& info) {
  char byte;
  const ssize_t got = recv(FileDescriptor(info, 0), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && errno != EAGAIN && errno != ECONNRESET) {
    throw SystemError(info.Env(), "recv", errno);
  }
  return Napi::Boolean::New(info.Env(), got == 0 || (got < 0 && errno == ECONNRESET));
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("connect", Napi::Function::New(env, Connect, "connect"));
  exports.Set("reconfigure", Napi::Function::New(env, Reconfigure, "reconfigure"));
  exports.Set("disconnect", Napi::Function::New(env, Disconnect, "disconnect"));
  exports.Set("status", Napi::Function::New(env, Status, "status"));
  exports.Set("socketPair", Napi::Function::New(env, SocketPair, "socketPair"));
  exports.Set("close", Napi::Function::New(env, Close, "close"));
  exports.Set("isHungUp", Napi::Function::New(env, IsHungUp, "isHungUp"));
  return exports;
}

}  // namespace

NODE_API_MODULE(nbd_client, Init)
