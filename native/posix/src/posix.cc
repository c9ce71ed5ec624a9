// System calls that Node has no function for. What they refuse is thrown in Node's own shape
// { code, errno, syscall }; arguments that make no sense throw as well.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string>
#include <vector>

#include "addon.h"

namespace {

// No text of a system call may hold a zero byte: it would end there.
std::string Text(const Napi::Value& value, const char* name) {
  if (value.IsString()) {
    std::string text = value.As<Napi::String>().Utf8Value();
    if (text.find('\0') == std::string::npos) return text;
  }
  throw Napi::TypeError::New(value.Env(), name);
}

std::vector<std::string> Texts(const Napi::CallbackInfo& info, size_t i, const char* name) {
  if (i >= info.Length() || !info[i].IsArray()) throw Napi::TypeError::New(info.Env(), name);
  const auto array = info[i].As<Napi::Array>();
  std::vector<std::string> texts;
  texts.reserve(array.Length());
  for (uint32_t at = 0; at < array.Length(); at++) {
    texts.push_back(Text(array.Get(at), name));
  }
  return texts;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (auto& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// duplicate(fd): another descriptor of the same open file, which no program that is started inherits.
Napi::Value Duplicate(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsNumber()) throw Napi::TypeError::New(info.Env(), "fd");
  const double fd = info[0].As<Napi::Number>().DoubleValue();
  if (!(fd >= 0 && fd <= INT_MAX && fd == std::floor(fd))) {
    throw Napi::RangeError::New(info.Env(), "fd");
  }
  const int copy = fcntl(static_cast<int>(fd), F_DUPFD_CLOEXEC, 0);
  if (copy == -1) throw SystemError(info.Env(), "fcntl", errno);
  return Napi::Number::New(info.Env(), copy);
}

// execute(path, arguments, environment): this process goes on as that program, the first argument being
// the name it is given. Returns only by throwing.
Napi::Value Execute(const Napi::CallbackInfo& info) {
  if (info.Length() < 1) throw Napi::TypeError::New(info.Env(), "path");
  const std::string path = Text(info[0], "path");
  auto arguments = Texts(info, 1, "arguments");
  auto environment = Texts(info, 2, "environment");
  // Node marks its own descriptors as closed by this; the standard ones stay, as for any child.
  for (int fd = 0; fd <= 2; fd++) {
    const int flags = fcntl(fd, F_GETFD);
    if (flags != -1) fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC);
  }
  execve(path.c_str(), Pointers(arguments).data(), Pointers(environment).data());
  throw SystemError(info.Env(), "execve", errno);
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("duplicate", Napi::Function::New<Duplicate>(env, "duplicate"));
  exports.Set("execute", Napi::Function::New<Execute>(env, "execute"));
  return exports;
}

}  // namespace

NODE_API_MODULE(posix, Init)
