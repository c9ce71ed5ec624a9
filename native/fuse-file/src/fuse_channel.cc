#include "fuse_channel.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "nbd_client.h"

namespace fusefile {

namespace {

constexpr uint32_t kBlockBytes = 4096;
// Nothing about the file changes while it is mounted.
constexpr uint64_t kValidSeconds = 365 * 24 * 3600;

}  // namespace

bool FuseChannel::Mount(const char* path, uint64_t size_bytes, Problem& problem) {
  Descriptor opened(open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!opened.ok()) {
    problem.lacking = true;
    return problem.SayErrno(errno, "Cannot open \"/dev/fuse\"");
  }
  char options[128];
  snprintf(options, sizeof options, "fd=%d,rootmode=%o,user_id=0,group_id=0,max_read=%u",
           opened.get(), static_cast<unsigned>(S_IFREG | S_IRUSR), kReadBytesMax);
  constexpr unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (mount("obd-ts", path, "fuse.obd-ts", flags, options) != 0) {
    problem.lacking = errno == EPERM || errno == ENODEV;
    return problem.SayErrno(errno, "Cannot mount a FUSE file on \"%s\"", path);
  }
  device_ = std::move(opened);
  size_bytes_ = size_bytes;
  return true;
}

FuseChannel::Next FuseChannel::TakeNext(Read& read_out) {
  for (;;) {
    const ssize_t got = read(device_.get(), request_, sizeof request_);
    if (got < 0) {
      // ENOENT: whoever asked was interrupted before we took it.
      if (errno == ENOENT || errno == EINTR) continue;
      return errno == EAGAIN ? Next::kNothing : Next::kGone;
    }
    fuse_in_header in;
    if (got < static_cast<ssize_t>(sizeof in)) return Next::kGone;
    memcpy(&in, request_, sizeof in);
    const uint8_t* body = request_ + sizeof in;
    bool there = true;
    switch (in.opcode) {
      case FUSE_READ: {
        fuse_read_in wanted;
        memcpy(&wanted, body, sizeof wanted);
        // Past the page cache the kernel asks for whole pages, also at the end of the file.
        const uint64_t rest = size_bytes_ - std::min(size_bytes_, wanted.offset);
        const uint32_t length = static_cast<uint32_t>(std::min<uint64_t>(wanted.size, rest));
        if (length == 0) {
          there = Reply(in.unique, 0, nullptr, 0);
        } else if (length > kReadBytesMax) {
          there = Reply(in.unique, EINVAL, nullptr, 0);
        } else {
          read_out = {in.unique, wanted.offset, length};
          return Next::kRead;
        }
        break;
      }
      case FUSE_INIT:
        there = ReplyInit(in.unique, body);
        break;
      case FUSE_GETATTR:
        there = ReplyAttributes(in.unique);
        break;
      case FUSE_OPEN:
        there = ReplyOpen(in.unique);
        break;
      case FUSE_STATFS:
        there = ReplyStatfs(in.unique);
        break;
      case FUSE_RELEASE:
      case FUSE_DESTROY:
        there = Reply(in.unique, 0, nullptr, 0);
        break;
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
        // The kernel wants no answer.
        break;
      default:
        there = Reply(in.unique, ENOSYS, nullptr, 0);
    }
    if (!there) return Next::kGone;
  }
}

bool FuseChannel::ReplyInit(uint64_t unique, const uint8_t* body) {
  // Kernels send more or less of it by version; what we look at all of them send.
  struct {
    uint32_t major, minor, max_readahead, flags;
  } in;
  memcpy(&in, body, sizeof in);
  fuse_init_out out = {};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = std::min<uint32_t>(in.minor, FUSE_KERNEL_MINOR_VERSION);
  out.max_readahead = in.max_readahead;
  out.flags = in.flags & (FUSE_ASYNC_READ | FUSE_ASYNC_DIO | FUSE_MAX_PAGES);
  out.max_background = kRequestsMax;
  out.congestion_threshold = kRequestsMax;
  out.max_write = kBlockBytes;
  out.time_gran = 1;
  out.max_pages = static_cast<uint16_t>(kReadBytesMax / static_cast<uint32_t>(getpagesize()));
  return Reply(unique, 0, &out, sizeof out);
}

bool FuseChannel::ReplyAttributes(uint64_t unique) {
  fuse_attr_out out = {};
  out.attr_valid = kValidSeconds;
  out.attr.ino = FUSE_ROOT_ID;
  out.attr.mode = S_IFREG | S_IRUSR;
  out.attr.nlink = 1;
  out.attr.size = size_bytes_;
  out.attr.blocks = (size_bytes_ + 511) / 512;
  out.attr.blksize = kBlockBytes;
  return Reply(unique, 0, &out, sizeof out);
}

bool FuseChannel::ReplyOpen(uint64_t unique) {
  fuse_open_out out = {};
  out.open_flags = FOPEN_KEEP_CACHE;
  return Reply(unique, 0, &out, sizeof out);
}

bool FuseChannel::ReplyStatfs(uint64_t unique) {
  fuse_statfs_out out = {};
  out.st.bsize = kBlockBytes;
  out.st.frsize = kBlockBytes;
  out.st.blocks = (size_bytes_ + kBlockBytes - 1) / kBlockBytes;
  out.st.files = 1;
  return Reply(unique, 0, &out, sizeof out);
}

bool FuseChannel::AnswerRead(uint64_t unique, const uint8_t* data, uint32_t length) {
  return Reply(unique, 0, data, length);
}

bool FuseChannel::AnswerError(uint64_t unique, int error) {
  return Reply(unique, error, nullptr, 0);
}

bool FuseChannel::Reply(uint64_t unique, int error, const void* body, uint32_t body_bytes) {
  fuse_out_header out = {};
  out.len = static_cast<uint32_t>(sizeof out) + body_bytes;
  out.error = -error;
  out.unique = unique;
  const iovec parts[2] = {{&out, sizeof out}, {const_cast<void*>(body), body_bytes}};
  while (writev(device_.get(), parts, body_bytes > 0 ? 2 : 1) < 0) {
    if (errno == EINTR) continue;
    // ENOENT: whoever asked was killed, and does not wait any more.
    return errno == ENOENT;
  }
  return true;
}

}  // namespace fusefile
