#include "fuse_channel.h"

#include <fcntl.h>
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
constexpr uint32_t kDirectoryMode = S_IFDIR | S_IRUSR | S_IXUSR;
constexpr uint32_t kFileMode = S_IFREG | S_IRUSR;
// Nothing about the file changes while it is mounted.
constexpr uint64_t kValidSeconds = 365 * 24 * 3600;

}  // namespace

bool FuseChannel::Mount(const char* path, uint64_t size_bytes, Descriptor& root, Problem& problem) {
  Descriptor opened(open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!opened.ok()) {
    problem.lacking = true;
    return problem.SayErrno(errno, "Cannot open \"/dev/fuse\"");
  }
  const Descriptor context(fsopen("fuse", FSOPEN_CLOEXEC));
  if (!context.ok()) {
    problem.lacking = true;
    return problem.SayErrno(errno, "Cannot use FUSE");
  }
  char number[16], mode[16], bytes[16];
  snprintf(number, sizeof number, "%d", opened.get());
  snprintf(mode, sizeof mode, "%o", static_cast<unsigned>(kDirectoryMode));
  snprintf(bytes, sizeof bytes, "%u", kReadBytesMax);
  const char* const options[][2] = {
      {"source", "obd-ts"}, {"subtype", "obd-ts"}, {"fd", number},      {"rootmode", mode},
      {"user_id", "0"},     {"group_id", "0"},     {"max_read", bytes},
  };
  for (const auto& [key, value] : options) {
    if (fsconfig(context.get(), FSCONFIG_SET_STRING, key, value, 0) != 0) {
      return problem.SayErrno(errno, "Cannot make a FUSE mount with %s=%s", key, value);
    }
  }
  constexpr unsigned attributes =
      MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  Descriptor mounted;
  if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0) {
    mounted = Descriptor(fsmount(context.get(), FSMOUNT_CLOEXEC, attributes));
  }
  if (!mounted.ok()) {
    problem.lacking = errno == EPERM || errno == ENODEV;
    return problem.SayErrno(errno, "Cannot make a FUSE mount for \"%s\"", path);
  }
  device_ = std::move(opened);
  root = std::move(mounted);
  path_ = path;
  size_bytes_ = size_bytes;
  const char* name;
  size_t length;
  file_node_ = FUSE_ROOT_ID;
  while (NameOf(file_node_ + 1, name, length)) file_node_++;
  return true;
}

FuseChannel::Next FuseChannel::TakeNext(Read& read_out) {
  for (;;) {
    const ssize_t got = read(device_.get(), request_, sizeof request_);
    if (got < 0) {
      // ENOENT: the requesting process was interrupted before we took the request.
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
        // With direct I/O the kernel requests whole pages, also at the end of the file.
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
        there = ReplyAttributes(in.unique, in.nodeid);
        break;
      case FUSE_LOOKUP:
        // The kernel ends the name with a zero; a name too long for the buffer has none.
        request_[sizeof request_ - 1] = 0;
        there = ReplyEntry(in.unique, in.nodeid, reinterpret_cast<const char*>(body));
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
  // The size of the body depends on the kernel version; every kernel sends these four fields.
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

bool FuseChannel::NameOf(uint64_t node, const char*& name, size_t& bytes) const {
  name = path_ + strspn(path_, "/");
  for (uint64_t at = FUSE_ROOT_ID + 1; *name != 0; at++) {
    bytes = strcspn(name, "/");
    if (at == node) return true;
    name += bytes;
    name += strspn(name, "/");
  }
  return false;
}

bool FuseChannel::ReplyEntry(uint64_t unique, uint64_t parent, const char* name) {
  const char* known;
  size_t bytes;
  if (!NameOf(parent + 1, known, bytes) || strlen(name) != bytes ||
      memcmp(name, known, bytes) != 0) {
    return Reply(unique, ENOENT, nullptr, 0);
  }
  fuse_entry_out out = {};
  out.nodeid = parent + 1;
  out.entry_valid = kValidSeconds;
  out.attr_valid = kValidSeconds;
  FillAttributes(out.nodeid, out.attr);
  return Reply(unique, 0, &out, sizeof out);
}

void FuseChannel::FillAttributes(uint64_t node, fuse_attr& attributes) const {
  attributes.ino = node;
  attributes.blksize = kBlockBytes;
  if (node != file_node_) {
    attributes.mode = kDirectoryMode;
    attributes.nlink = 2;
    return;
  }
  attributes.mode = kFileMode;
  attributes.nlink = 1;
  attributes.size = size_bytes_;
  attributes.blocks = (size_bytes_ + 511) / 512;
}

bool FuseChannel::ReplyAttributes(uint64_t unique, uint64_t node) {
  fuse_attr_out out = {};
  out.attr_valid = kValidSeconds;
  FillAttributes(node, out.attr);
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
    // ENOENT: the requesting process was killed and no longer waits.
    return errno == ENOENT;
  }
  return true;
}

}  // namespace fusefile
