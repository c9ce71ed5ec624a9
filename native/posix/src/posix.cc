// System calls that Node has no function for. Failures are thrown in Node's own shape
// { code, errno, syscall }; invalid arguments throw as well.

#include <fcntl.h>
#include <linux/falloc.h>
#include <malloc.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "addon.h"

namespace {

// glibc's limit on 64-bit machines.
constexpr double kMmapThresholdMax = 32 << 20;

// duplicate(fd): another descriptor of the same open file, which child programs do not inherit.
Napi::Value Duplicate(const Napi::CallbackInfo& info) {
  const int copy = fcntl(FileDescriptor(info, 0), F_DUPFD_CLOEXEC, 0);
  if (copy == -1) throw SystemError(info.Env(), "fcntl", errno);
  return Napi::Number::New(info.Env(), copy);
}

// returnFreedBuffers(bytes): free() returns buffers of this size and larger to the kernel at once, in all threads. Only
// glibc has the setting (mallopt(3)), and without it raises the size by itself.
void ReturnFreedBuffers(const Napi::CallbackInfo& info) {
  const int bytes = static_cast<int>(WholeNumber(info, 0, 1, kMmapThresholdMax, "bytes"));
#ifdef __GLIBC__
  if (mallopt(M_MMAP_THRESHOLD, bytes) != 1) throw SystemError(info.Env(), "mallopt", EINVAL);
#else
  (void)bytes;
#endif
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
  const auto offset = Unsigned<off_t>(info, 1, kSafeIntegerMax, "offset");
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
  exports.Set("returnFreedBuffers",
              Napi::Function::New<ReturnFreedBuffers>(env, "returnFreedBuffers"));
  exports.Set("lock", Napi::Function::New<Lock>(env, "lock"));
  exports.Set("punchHole", Napi::Function::New<PunchHole>(env, "punchHole"));
  exports.Set("allocate", Napi::Function::New<Allocate>(env, "allocate"));
  return exports;
}

}  // namespace

NODE_API_MODULE(posix, Init)
