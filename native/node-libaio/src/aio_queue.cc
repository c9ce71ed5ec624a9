#include "aio_queue.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "read_columns.h"

namespace {

// The kernel takes more at a time; nothing here has use for it.
constexpr double kDepthMax = 4096;

// The kernel's own interface: libaio adds nothing to these but a library to install.
int IoSetup(unsigned events, aio_context_t* context) {
  return static_cast<int>(syscall(SYS_io_setup, events, context));
}
int IoDestroy(aio_context_t context) { return static_cast<int>(syscall(SYS_io_destroy, context)); }
int IoSubmit(aio_context_t context, long count, iocb** blocks) {
  return static_cast<int>(syscall(SYS_io_submit, context, count, blocks));
}
// What has ended by now; it does not wait.
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
      depth_(static_cast<size_t>(WholeNumber(info, 0, 0, kDepthMax, "depth"))),
      async_context_(info.Env(), "AioQueue") {
  if (depth_ == 0) throw Napi::RangeError::New(env_, "depth");
  auto memory = TypedArray<Napi::Uint8Array>(info, 1, napi_uint8_array, "memory");
  if (info.Length() < 3 || !info[2].IsFunction()) throw Napi::TypeError::New(env_, "onDone");
  data_ = memory.Data();
  bytes_ = memory.ByteLength();
  blocks_.resize(depth_);
  pointers_.resize(depth_);
  events_.resize(depth_);

  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env_, &loop) != napi_ok) throw Napi::Error::New(env_, "no event loop");
  if (IoSetup(static_cast<unsigned>(depth_), &context_) != 0) {
    throw SystemError(env_, "io_setup", errno);
  }
  event_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (event_fd_ < 0) {
    const int number = errno;
    IoDestroy(context_);
    throw SystemError(env_, "eventfd", number);
  }
  poll_ = new uv_poll_t;
  const int failed = uv_poll_init(loop, poll_, event_fd_);
  if (failed != 0) {
    delete poll_;
    close(event_fd_);
    IoDestroy(context_);
    throw SystemError(env_, "uv_poll_init", -failed);
  }
  poll_->data = this;
  uv_poll_start(poll_, UV_READABLE, [](uv_poll_t* handle, int, int) {
    static_cast<AioQueue*>(handle->data)->Reap();
  });
  uv_unref(reinterpret_cast<uv_handle_t*>(poll_));
  memory_ = Napi::Persistent(memory);
  on_done_ = Napi::Persistent(info[2].As<Napi::Function>());
  napi_add_async_cleanup_hook(env_, OnCleanup, this, &hook_);
  // The thread's one queue: it ends with the thread, by the hook.
  Ref();
}

AioQueue::~AioQueue() = default;

Napi::Value AioQueue::Submit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const size_t wanted = static_cast<size_t>(WholeNumber(info, 0, 0, UINT32_MAX, "count"));
  const ReadColumns reads(info, 1, wanted, bytes_);
  auto tags = TypedArray<Napi::Int32Array>(info, 5, napi_int32_array, "tags");
  if (wanted > tags.ElementLength()) throw Napi::RangeError::New(env, "tags");
  const size_t room = depth_ - pending_;
  const size_t count = wanted < room ? wanted : room;
  if (count == 0) return Napi::Number::New(env, wanted == 0 ? 0 : -EAGAIN);
  for (size_t i = 0; i < count; i++) {
    // The kernel copies it: it is of no use after the call.
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
    block.aio_resfd = static_cast<uint32_t>(event_fd_);
    pointers_[i] = &block;
  }
  const int taken = IoSubmit(context_, static_cast<long>(count), pointers_.data());
  if (taken < 0) return Napi::Number::New(env, -errno);
  if (pending_ == 0 && taken > 0) uv_ref(reinterpret_cast<uv_handle_t*>(poll_));
  pending_ += static_cast<size_t>(taken);
  return Napi::Number::New(env, taken);
}

void AioQueue::Reap() {
  uint64_t ended;
  // Reset before the events are taken: what ends in between makes it readable again.
  while (read(event_fd_, &ended, sizeof ended) < 0 && errno == EINTR) {
  }
  const int count = IoGetEvents(context_, static_cast<long>(depth_), events_.data());
  if (count <= 0) return;
  pending_ -= static_cast<size_t>(count);
  if (pending_ == 0) uv_unref(reinterpret_cast<uv_handle_t*>(poll_));
  const Napi::Env env(env_);
  const Napi::HandleScope scope(env);
  // The callback may submit, but not reap: events_ stays what it is.
  for (int i = 0; i < count; i++) {
    const Napi::HandleScope inner(env);
    const auto tag = static_cast<int64_t>(events_[i].data);
    CallBack(on_done_,
             {Napi::Number::New(env, static_cast<double>(tag)),
              Napi::Number::New(env, static_cast<double>(events_[i].res))},
             async_context_);
  }
}

void AioQueue::OnCleanup(napi_async_cleanup_hook_handle, void* queue) {
  static_cast<AioQueue*>(queue)->Close();
}

void AioQueue::Close() {
  // Waits for what is under way: the memory is the kernel's until then.
  IoDestroy(context_);
  poll_->data = hook_;
  const int event_fd = event_fd_;
  uv_poll_stop(poll_);
  // libuv has let go of the descriptor with uv_poll_stop().
  close(event_fd);
  uv_close(reinterpret_cast<uv_handle_t*>(poll_), [](uv_handle_t* handle) {
    napi_remove_async_cleanup_hook(static_cast<napi_async_cleanup_hook_handle>(handle->data));
    delete reinterpret_cast<uv_poll_t*>(handle);
  });
}
