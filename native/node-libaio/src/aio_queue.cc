#include "aio_queue.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "read_columns.h"

namespace {

// The kernel allows more; no caller needs more.
constexpr double kDepthMax = 4096;

// The kernel's own interface: libaio adds nothing to these but a library to install.
int IoSetup(unsigned events, aio_context_t* context) {
  return static_cast<int>(syscall(SYS_io_setup, events, context));
}
int IoDestroy(aio_context_t context) { return static_cast<int>(syscall(SYS_io_destroy, context)); }
int IoSubmit(aio_context_t context, long count, iocb** blocks) {
  return static_cast<int>(syscall(SYS_io_submit, context, count, blocks));
}
// Takes the reads that have ended, without waiting.
int IoGetEvents(aio_context_t context, long max, io_event* events) {
  timespec none{};
  return static_cast<int>(syscall(SYS_io_getevents, context, 0L, max, events, &none));
}

}  // namespace

Napi::Function AioQueue::Class(Napi::Env env) {
  return DefineClass(env, "AioQueue", {InstanceMethod<&AioQueue::Submit>("submit")});
}

AioQueue::AioQueue(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<AioQueue>(info),
      env_(info.Env()),
      depth_(static_cast<size_t>(WholeNumber(info, 0, 1, kDepthMax, "depth"))),
      async_context_(info.Env(), "AioQueue") {
  auto memory = ByteArray(info, 1, "memory");
  on_done_ = Napi::Persistent(Callback(info, 2, "onDone"));
  data_ = memory.Data();
  bytes_ = memory.ByteLength();
  blocks_.resize(depth_);
  pointers_.resize(depth_);
  events_.resize(depth_);
  if (IoSetup(static_cast<unsigned>(depth_), &context_) != 0) {
    throw SystemError(env_, "io_setup", errno);
  }
  const int failed = wakeup_.Open(
      env_, this, [](void* queue) { static_cast<AioQueue*>(queue)->Reap(); },
      [](void* queue) { static_cast<AioQueue*>(queue)->Close(); });
  if (failed != 0) {
    IoDestroy(context_);
    throw SystemError(env_, "eventfd", -failed);
  }
  memory_ = Napi::Persistent(memory);
  // Until the end of the thread: a thread has one queue.
  Ref();
}

Napi::Value AioQueue::Submit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto wanted = Unsigned<size_t>(info, 0, UINT32_MAX, "count");
  const ReadColumns reads(info, 1, wanted, bytes_);
  const auto tags = Elements<int32_t>(info, 5, "tags");
  if (wanted > tags.size()) throw Napi::RangeError::New(env, "tags");
  const size_t room = depth_ - pending_;
  const size_t count = wanted < room ? wanted : room;
  if (count == 0) return Napi::Number::New(env, wanted == 0 ? 0 : -EAGAIN);
  for (size_t i = 0; i < count; i++) {
    // The kernel copies the block: it can be reused after the call.
    iocb& block = blocks_[i];
    memset(&block, 0, sizeof block);
    block.aio_data = static_cast<uint64_t>(static_cast<int64_t>(tags[i]));
    block.aio_lio_opcode = IOCB_CMD_PREAD;
    block.aio_rw_flags = RWF_NOWAIT;
    block.aio_fildes = static_cast<uint32_t>(reads.fds[i]);
    block.aio_buf = reinterpret_cast<uint64_t>(data_ + reads.positions[i]);
    block.aio_nbytes = reads.lengths[i];
    block.aio_offset = static_cast<int64_t>(reads.offsets[i]);
    block.aio_flags = IOCB_FLAG_RESFD;
    block.aio_resfd = static_cast<uint32_t>(wakeup_.fd());
    pointers_[i] = &block;
  }
  const int taken = IoSubmit(context_, static_cast<long>(count), pointers_.data());
  if (taken < 0) return Napi::Number::New(env, -errno);
  if (pending_ == 0 && taken > 0) wakeup_.Ref();
  pending_ += static_cast<size_t>(taken);
  return Napi::Number::New(env, taken);
}

void AioQueue::Reap() {
  // Before the events are taken: a read that ends in between signals again.
  wakeup_.Drain();
  const int count = IoGetEvents(context_, static_cast<long>(depth_), events_.data());
  if (count <= 0) return;
  pending_ -= static_cast<size_t>(count);
  if (pending_ == 0) wakeup_.Unref();
  const Napi::Env env(env_);
  const Napi::HandleScope scope(env);
  // The callback may submit reads but cannot reap them, so events_ does not change.
  for (int i = 0; i < count; i++) {
    const Napi::HandleScope inner(env);
    const auto tag = static_cast<int64_t>(events_[i].data);
    CallBack(on_done_,
             {Napi::Number::New(env, static_cast<double>(tag)),
              Napi::Number::New(env, static_cast<double>(events_[i].res))},
             async_context_);
  }
}

void AioQueue::Close() {
  // Waits for reads in flight: until they end, the kernel writes to the memory.
  IoDestroy(context_);
  wakeup_.Close();
}
