#include "ring.h"

#include <cerrno>
#include <cstring>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

// The kernel had no memory for a request: it has, a moment later, or the machine has other problems.
constexpr int kTriesMax = 100;
constexpr useconds_t kPauseMicroseconds = 1000;

int Setup(unsigned entries, io_uring_params* params) {
  return static_cast<int>(syscall(__NR_io_uring_setup, entries, params));
}

uint32_t Acquire(const uint32_t* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
void Release(uint32_t* at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

}  // namespace

int Ring::Open(unsigned entries, uint32_t flags) {
  io_uring_params params{};
  params.flags = flags;
  fd_ = Setup(entries, &params);
  if (fd_ < 0) return -errno;
  entries_ = params.sq_entries;
  sqe_bytes_ = flags & IORING_SETUP_SQE128 ? 128 : 64;
  sq_ = params.sq_off;
  cq_ = params.cq_off;
  const size_t sq_bytes = sq_.array + params.sq_entries * sizeof(uint32_t);
  const size_t cq_bytes = cq_.cqes + params.cq_entries * sizeof(io_uring_cqe);
  // One mapping for both: every kernel with ublk has IORING_FEAT_SINGLE_MMAP.
  rings_bytes_ = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
  constexpr int kAccess = PROT_READ | PROT_WRITE;
  constexpr int kKind = MAP_SHARED | MAP_POPULATE;
  void* rings = mmap(nullptr, rings_bytes_, kAccess, kKind, fd_, IORING_OFF_SQ_RING);
  if (rings != MAP_FAILED) rings_ = static_cast<uint8_t*>(rings);
  void* sqes = mmap(nullptr, entries_ * sqe_bytes_, kAccess, kKind, fd_, IORING_OFF_SQES);
  if (sqes != MAP_FAILED) sqes_ = static_cast<uint8_t*>(sqes);
  if (rings_ == nullptr || sqes_ == nullptr) {
    const int number = errno;
    Close();
    return -number;
  }
  for (unsigned i = 0; i < entries_; i++) At(sq_.array)[i] = i;
  return 0;
}

int Ring::Register(int event_fd) {
  return syscall(__NR_io_uring_register, fd_, IORING_REGISTER_EVENTFD, &event_fd, 1) == 0 ? 0 : -errno;
}

void Ring::Close() {
  const int fd = Detach();
  if (fd >= 0) close(fd);
}

int Ring::Detach() {
  // The mappings hold the ring as the descriptor does.
  if (rings_ != nullptr) munmap(rings_, rings_bytes_);
  if (sqes_ != nullptr) munmap(sqes_, entries_ * sqe_bytes_);
  rings_ = nullptr;
  sqes_ = nullptr;
  const int fd = fd_;
  fd_ = -1;
  return fd;
}

io_uring_sqe* Ring::Next() {
  const unsigned i = sq_tail_++ & (entries_ - 1);
  queued_++;
  auto* sqe = reinterpret_cast<io_uring_sqe*>(sqes_ + i * sqe_bytes_);
  memset(static_cast<void*>(sqe), 0, sqe_bytes_);
  return sqe;
}

int Ring::Enter() {
  Release(At(sq_.tail), sq_tail_);
  for (int tries = 0;;) {
    const long taken = syscall(__NR_io_uring_enter, fd_, queued_, 0, IORING_ENTER_GETEVENTS, nullptr, 0);
    if (taken >= 0) {
      queued_ -= static_cast<unsigned>(taken);
      if (queued_ == 0) return 0;
    } else if (errno != EINTR) {
      if ((errno != EAGAIN && errno != EBUSY) || ++tries == kTriesMax) return -errno;
      usleep(kPauseMicroseconds);
    }
  }
}

bool Ring::IsEmpty() const { return Acquire(At(cq_.tail)) == *At(cq_.head); }

bool Ring::HasWork() const {
  return !IsEmpty() || (Acquire(At(sq_.flags)) & IORING_SQ_TASKRUN) != 0;
}

bool Ring::Take(uint64_t* user_data, int32_t* result) {
  if (IsEmpty()) return false;
  const uint32_t head = *At(cq_.head);
  const auto* cqes = reinterpret_cast<const io_uring_cqe*>(rings_ + cq_.cqes);
  const io_uring_cqe& cqe = cqes[head & *At(cq_.ring_mask)];
  *user_data = cqe.user_data;
  *result = cqe.res;
  Release(At(cq_.head), head + 1);
  return true;
}
