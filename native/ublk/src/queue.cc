#include "queue.h"

#include <linux/capability.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>

#include "addon.h"

namespace {

// Newer than the headers this may be built with.
constexpr uint32_t kFetch = 0xc0107520;
constexpr uint32_t kCommitAndFetch = 0xc0107521;

// struct ublksrv_io_desc
struct Descriptor {
  uint32_t op_flags;
  uint32_t sectors;
  uint64_t start_sector;
  uint64_t address;
};
// struct ublksrv_io_cmd
struct IoCommand {
  uint16_t queue;
  uint16_t tag;
  int32_t result;
  uint64_t address;
};

constexpr uint32_t kDepthMax = 4096;
constexpr double kIoBytesMax = 32 << 20;
constexpr size_t kReadyColumns = 4;
// Batches of one device before the loop serves its other handles.
constexpr int kTurnsMax = 8;
constexpr useconds_t kDeathPollMicroseconds = 1000;

size_t RoundUpToPages(size_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

// Takes CAP_SYS_ADMIN from this thread until the end of the block.
class WithoutAdmin {
 public:
  int Begin() {
    if (syscall(SYS_capget, &header_, data_) != 0) return -errno;
    __user_cap_data_struct fewer[_LINUX_CAPABILITY_U32S_3];
    memcpy(fewer, data_, sizeof data_);
    fewer[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
    if (syscall(SYS_capset, &header_, fewer) != 0) return -errno;
    begun_ = true;
    return 0;
  }
  ~WithoutAdmin() {
    if (begun_) syscall(SYS_capset, &header_, data_);
  }

 private:
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data_[_LINUX_CAPABILITY_U32S_3]{};
  bool begun_ = false;
};

}  // namespace

Napi::Function Queue::Class(Napi::Env env) {
  return DefineClass(env, "Queue",
                     {InstanceMethod<&Queue::Commit>("commit"),
                      InstanceMethod<&Queue::Leave>("leave"),
                      InstanceMethod<&Queue::Resume>("resume"),
                      InstanceMethod<&Queue::CloseFromScript>("close")});
}

Queue::Queue(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<Queue>(info),
      env_(info.Env()),
      depth_(static_cast<uint32_t>(WholeNumber(info, 1, 1, kDepthMax, "depth"))),
      io_bytes_max_(static_cast<size_t>(WholeNumber(info, 2, 4096, kIoBytesMax, "ioBytesMax"))),
      tags_(depth_, Tag::kKernels),
      async_context_(info.Env(), "UblkQueue") {
  const Napi::Env env = info.Env();
  const std::string path = Text(info[0], "path");
  on_ready_ = Napi::Persistent(Callback(info, 3, "onReady"));
  on_stopped_ = Napi::Persistent(Callback(info, 4, "onStopped"));

  // Requests are handed over when this thread enters the kernel, and do not interrupt it.
  int failed = ring_.Open(depth_, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
                                      IORING_SETUP_TASKRUN_FLAG);
  if (failed != 0) throw SystemError(env, "io_uring_setup", -failed);
  fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd_ < 0) throw SystemError(env, "open", errno);

  const size_t bytes = depth_ * io_bytes_max_;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    const int number = errno;
    Close();
    throw SystemError(env, "mmap", number);
  }
  // Most tags only ever use their first pages: a huge page for each would waste 2 MiB.
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  memory_ = static_cast<uint8_t*>(memory);
  auto buffer = Napi::ArrayBuffer::New(
      env, memory, bytes, [](Napi::Env, void* data, size_t* length) {
        munmap(data, *length);
        delete length;
      },
      new size_t(bytes));
  ready_ = Napi::Persistent(Napi::Float64Array::New(env, depth_ * kReadyColumns));
  answers_ = Napi::Persistent(Napi::Int32Array::New(env, depth_ * 2));
  auto self = info.This().As<Napi::Object>();
  self.Set("memory", buffer);
  self.Set("ready", ready_.Value());
  self.Set("answers", answers_.Value());

  failed = wakeup_.Open(
      env_, this, [](void* queue) { static_cast<Queue*>(queue)->Wake(); },
      [](void* queue) { static_cast<Queue*>(queue)->CloseAfterThread(); });
  if (failed == 0) {
    Ref();
    held_ = true;
    wakeup_.Ref();
    failed = ring_.Register(wakeup_.fd());
  }
  const char* what = "eventfd";
  if (failed == 0) {
    what = "UBLK_IO_FETCH_REQ";
    failed = Fetch();
  }
  if (failed == 0) {
    // After the fetch: a process that dies with the mapping but without the fetch makes the device unusable for the
    // next one.
    what = "mmap";
    descriptors_bytes_ = RoundUpToPages(depth_ * sizeof(Descriptor));
    void* mapped =
        mmap(nullptr, descriptors_bytes_, PROT_READ, MAP_SHARED | MAP_POPULATE, fd_, 0);
    if (mapped == MAP_FAILED) {
      failed = -errno;
    } else {
      descriptors_ = static_cast<const uint8_t*>(mapped);
    }
  }
  if (failed != 0) {
    Close();
    throw SystemError(env, what, -failed);
  }
}

int Queue::Fetch() {
  WithoutAdmin without;
  int failed = without.Begin();
  if (failed != 0) return failed;
  for (uint32_t tag = 0; tag < depth_; tag++) Push(kFetch, tag, 0);
  failed = ring_.Enter();
  if (failed != 0) return failed;
  // There is no request yet: a completion is a failure.
  uint64_t tag;
  int32_t result;
  if (ring_.Take(&tag, &result)) return result < 0 ? result : -EPROTO;
  return 0;
}

void Queue::Push(uint32_t operation, uint32_t tag, int32_t result) {
  io_uring_sqe* sqe = ring_.Next();
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = fd_;
  sqe->cmd_op = operation;
  sqe->user_data = tag;
  const IoCommand command{0, static_cast<uint16_t>(tag), result,
                          reinterpret_cast<uint64_t>(memory_ + tag * io_bytes_max_)};
  memcpy(sqe->cmd, &command, sizeof command);
}

void Queue::Commit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto count = static_cast<uint32_t>(WholeNumber(info, 0, 0, depth_, "count"));
  if (fd_ < 0 || left_) return;
  const int32_t* answers = answers_.Value().Data();
  for (uint32_t i = 0; i < count; i++) {
    const auto tag = static_cast<uint32_t>(answers[2 * i]);
    if (tag >= depth_ || tags_[tag] != Tag::kOurs) throw Napi::RangeError::New(env, "tag");
    const int32_t result = answers[2 * i + 1];
    if (result > static_cast<int32_t>(io_bytes_max_)) throw Napi::RangeError::New(env, "result");
    tags_[tag] = Tag::kKernels;
    Push(kCommitAndFetch, tag, result);
  }
  const int failed = ring_.Enter();
  if (failed != 0) throw SystemError(env, "io_uring_enter", -failed);
}

void Queue::Wake() {
  const Napi::Env env(env_);
  for (int turn = 0; turn < kTurnsMax && fd_ >= 0 && !left_; turn++) {
    if (!ring_.HasWork()) {
      // Work that arrives before the next line is seen by it, and later work signals.
      wakeup_.Drain();
      if (!ring_.HasWork()) return;
    }
    const Napi::HandleScope scope(env);
    if (ring_.IsEmpty()) {
      const int failed = ring_.Enter();
      if (failed != 0) {
        napi_fatal_exception(env_, SystemError(env, "io_uring_enter", -failed).Value());
        return;
      }
    }
    const uint32_t count = Gather();
    if (count > 0) Call(on_ready_, count);
    if (gone_ == depth_) {
      gone_ = 0;
      Call(on_stopped_, 0);
    }
  }
}

uint32_t Queue::Gather() {
  double* row = ready_.Value().Data();
  uint32_t count = 0;
  uint64_t tag;
  int32_t result;
  while (count < depth_ && ring_.Take(&tag, &result)) {
    if (result != 0) {
      // Stopped (ENODEV), or refused: the kernel sends no more requests with this tag.
      tags_[tag] = Tag::kGone;
      gone_++;
      continue;
    }
    Descriptor descriptor;
    memcpy(&descriptor, descriptors_ + tag * sizeof descriptor, sizeof descriptor);
    tags_[tag] = Tag::kOurs;
    *row++ = static_cast<double>(tag);
    *row++ = descriptor.op_flags;
    *row++ = descriptor.sectors;
    *row++ = static_cast<double>(descriptor.start_sector);
    count++;
  }
  return count;
}

void Queue::Call(const Napi::FunctionReference& function, uint32_t count) {
  CallBack(function, {Napi::Number::New(env_, count)}, async_context_);
}

void Queue::Leave(const Napi::CallbackInfo&) {
  if (fd_ < 0) return;
  left_ = true;
  wakeup_.Stop();
}

void Queue::Resume(const Napi::CallbackInfo&) {
  if (fd_ < 0 || !left_) return;
  left_ = false;
  wakeup_.Resume();
}

void Queue::CloseFromScript(const Napi::CallbackInfo&) { Close(); }

void Queue::Close() {
  if (fd_ < 0) return;
  ring_.Close();
  close(fd_);
  // Frees the pages now. The mapping goes when the buffer is collected, which may be much later: V8 does not account for
  // this external memory.
  if (memory_ != nullptr) madvise(memory_, depth_ * io_bytes_max_, MADV_DONTNEED);
  LetGo();
}

void Queue::CloseAfterThread() {
  if (fd_ < 0) return;
  const int ring = ring_.Detach();
  const int device = fd_;
  LetGo();
  const auto process = getpid();
  const auto thread = static_cast<pid_t>(syscall(SYS_gettid));
  // If the process ends first, the kernel closes both.
  std::thread([=] {
    while (syscall(SYS_tgkill, process, thread, 0) == 0) usleep(kDeathPollMicroseconds);
    close(ring);
    close(device);
  }).detach();
}

void Queue::LetGo() {
  fd_ = -1;
  if (descriptors_ != nullptr) munmap(const_cast<uint8_t*>(descriptors_), descriptors_bytes_);
  descriptors_ = nullptr;
  if (!held_) return;
  held_ = false;
  wakeup_.Close();
  Unref();
}
