// System calls that Node has no function for. Failures are thrown in Node's own shape
// { code, errno, syscall }; invalid arguments throw as well.

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string>
#include <vector>

#include "addon.h"

namespace {

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

// duplicate(fd): another descriptor of the same open file, which child programs do not inherit.
Napi::Value Duplicate(const Napi::CallbackInfo& info) {
  const int copy = fcntl(FileDescriptor(info, 0), F_DUPFD_CLOEXEC, 0);
  if (copy == -1) throw SystemError(info.Env(), "fcntl", errno);
  return Napi::Number::New(info.Env(), copy);
}

// execute(path, arguments, environment): replaces this process's program (execve). The first argument is
// the name the program is given. Returns only by throwing.
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

// lock(fd): takes the exclusive flock() of the open file without waiting; false if another open file has it.
// The kernel releases it with the last descriptor.
Napi::Value Lock(const Napi::CallbackInfo& info) {
  const int fd = FileDescriptor(info, 0);
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return Napi::Boolean::New(info.Env(), true);
  if (errno != EWOULDBLOCK) throw SystemError(info.Env(), "flock", errno);
  return Napi::Boolean::New(info.Env(), false);
}

// fallocate() on libuv's pool: it can wait for the file system's journal.
class Fallocate : public Napi::AsyncWorker {
 public:
  Fallocate(Napi::Env env, int fd, int mode, off_t offset, off_t length)
      : Napi::AsyncWorker(env, "fallocate"),
        deferred_(Napi::Promise::Deferred::New(env)),
        fd_(fd),
        mode_(mode),
        offset_(offset),
        length_(length) {}

  Napi::Promise Promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    int status;
    do {
      status = fallocate(fd_, mode_, offset_, length_);
    } while (status == -1 && errno == EINTR);
    if (status == -1) error_ = errno;
  }

  void OnOK() override {
    if (error_ == 0) deferred_.Resolve(Env().Undefined());
    else deferred_.Reject(SystemError(Env(), "fallocate", error_).Value());
  }

 private:
  Napi::Promise::Deferred deferred_;
  int fd_;
  int mode_;
  off_t offset_;
  off_t length_;
  int error_ = 0;
};

Napi::Value StartFallocate(const Napi::CallbackInfo& info, int mode) {
  const int fd = FileDescriptor(info, 0);
  const auto offset = static_cast<off_t>(WholeNumber(info, 1, 0, kSafeIntegerMax, "offset"));
  const auto length = static_cast<off_t>(WholeNumber(info, 2, 1, kSafeIntegerMax, "length"));
  auto* worker = new Fallocate(info.Env(), fd, mode, offset, length);
  const auto promise = worker->Promise();
  worker->Queue();
  return promise;
}

// punchHole(fd, offset, length): gives the range back to the file system; it reads as zeroes. A promise.
Napi::Value PunchHole(const Napi::CallbackInfo& info) {
  return StartFallocate(info, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
}

// allocate(fd, offset, length): writing the range needs no more room from now on. A promise.
Napi::Value Allocate(const Napi::CallbackInfo& info) { return StartFallocate(info, 0); }

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("duplicate", Napi::Function::New<Duplicate>(env, "duplicate"));
  exports.Set("execute", Napi::Function::New<Execute>(env, "execute"));
  exports.Set("lock", Napi::Function::New<Lock>(env, "lock"));
  exports.Set("punchHole", Napi::Function::New<PunchHole>(env, "punchHole"));
  exports.Set("allocate", Napi::Function::New<Allocate>(env, "allocate"));
  return exports;
}

}  // namespace

NODE_API_MODULE(posix, Init)
