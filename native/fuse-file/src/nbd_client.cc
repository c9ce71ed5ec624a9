#include "nbd_client.h"

#include <endian.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cinttypes>
#include <cstring>
#include <utility>

namespace fusefile {

namespace {

constexpr uint64_t kGreetingMagic = 0x4e42444d41474943;  // "NBDMAGIC"
constexpr uint64_t kOptionMagic = 0x49484156454f5054;    // "IHAVEOPT"
constexpr uint64_t kOptionReplyMagic = 0x3e889045565a9;
constexpr uint32_t kRequestMagic = 0x25609513;
constexpr uint32_t kReplyMagic = 0x67446698;

constexpr size_t kGreetingBytes = 18;
constexpr size_t kOptionReplyBytes = 20;
constexpr uint16_t kFixedNewstyle = 1;
constexpr uint16_t kNoZeroes = 2;
constexpr uint32_t kOptionGo = 7;
constexpr uint32_t kReplyAck = 1;
constexpr uint32_t kReplyInfo = 3;
constexpr uint32_t kReplyErrors = 1u << 31;
constexpr uint32_t kReplyUnknown = kReplyErrors + 6;
constexpr uint16_t kInfoExport = 0;
// Limit for the payload of an option reply: a description of an export, or a message.
constexpr uint32_t kOptionPayloadMax = 64 << 10;
// Replies from this length on are received by a separate system call, which is cheaper than moving the bytes behind them.
constexpr size_t kLongBytes = 64 << 10;
// The protocol's limit for a name.
constexpr size_t kNameBytesMax = 4096;

uint16_t Load16(const uint8_t* at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return be16toh(value);
}
uint32_t Load32(const uint8_t* at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return be32toh(value);
}
uint64_t Load64(const uint8_t* at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return be64toh(value);
}
uint8_t* Store16(uint8_t* at, uint16_t value) {
  value = htobe16(value);
  memcpy(at, &value, sizeof value);
  return at + sizeof value;
}
uint8_t* Store32(uint8_t* at, uint32_t value) {
  value = htobe32(value);
  memcpy(at, &value, sizeof value);
  return at + sizeof value;
}
uint8_t* Store64(uint8_t* at, uint64_t value) {
  value = htobe64(value);
  memcpy(at, &value, sizeof value);
  return at + sizeof value;
}

}  // namespace

bool NbdClient::Connect(const char* socket_path, const char* export_name, Problem& problem) {
  Close();
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (strlen(socket_path) >= sizeof address.sun_path) {
    return problem.Say("Cannot connect to \"%s\": a socket's path has at most %zu bytes",
                       socket_path, sizeof address.sun_path - 1);
  }
  if (strlen(export_name) > kNameBytesMax) {
    return problem.Say("Cannot ask for an export: its name has more than %zu bytes", kNameBytesMax);
  }
  strcpy(address.sun_path, socket_path);
  Descriptor made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made.ok()) return problem.SayErrno(errno, "Cannot make a socket");
  // A unix socket is connected at once, or not at all.
  if (connect(made.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return problem.SayErrno(errno, "Cannot connect to \"%s\"", socket_path);
  }
  socket_ = std::move(made);
  export_name_ = export_name;
  state_ = State::kHandshake;
  return true;
}

void NbdClient::Close() {
  socket_.Close();
  state_ = State::kClosed;
  greeted_ = false;
  described_ = false;
  received_ = 0;
  reply_bytes_ = 0;
  queued_ = 0;
}

short NbdClient::events() const { return queued_ > 0 ? POLLIN | POLLOUT : POLLIN; }

bool NbdClient::Receive(ReplySink& sink, Problem& problem) {
  // Receives only the rest of a long reply: bytes behind it would have to be moved to the start of
  // the buffer.
  const size_t room = (reply_bytes_ > received_ ? reply_bytes_ : kReceiveBytes) - received_;
  const ssize_t got = recv(socket_.get(), buffer_ + received_, room, 0);
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return true;
    return problem.SayErrno(errno, "Cannot read from the server");
  }
  if (got == 0) return problem.Say("Cannot read from the server: it hung up");
  received_ += static_cast<size_t>(got);
  return state_ == State::kReady ? TakeReplies(sink, problem)
         : greeted_              ? TakeOptionReply(problem)
                                 : TakeGreeting(problem);
}

bool NbdClient::TakeReplies(ReplySink& sink, Problem& problem) {
  size_t at = 0;
  reply_bytes_ = 0;
  while (received_ - at >= kReplyHeaderBytes) {
    const uint8_t* reply = buffer_ + at;
    if (Load32(reply) != kReplyMagic) {
      return problem.Say("Cannot go on with the server: it sent what is no reply");
    }
    const uint32_t error = Load32(reply + 4);
    const uint64_t cookie = Load64(reply + 8);
    const uint32_t length = sink.LengthOf(cookie);
    if (length == 0) {
      return problem.Say("Cannot go on with the server: it answered what was not asked");
    }
    const size_t bytes = kReplyHeaderBytes + (error == 0 ? length : 0);
    if (received_ - at < bytes) {
      if (bytes > kLongBytes) reply_bytes_ = bytes;
      break;
    }
    sink.Answer(cookie, error, reply + kReplyHeaderBytes);
    at += bytes;
  }
  Drop(at);
  return true;
}

// In the handshake, client and server take turns: only the next answer can follow the bytes taken here.
bool NbdClient::TakeGreeting(Problem& problem) {
  if (received_ < kGreetingBytes) return true;
  const uint16_t flags = Load16(buffer_ + 16);
  if (Load64(buffer_) != kGreetingMagic || Load64(buffer_ + 8) != kOptionMagic ||
      (flags & kFixedNewstyle) == 0) {
    return problem.Say("Cannot use the server: it does not speak NBD's fixed newstyle handshake");
  }
  Drop(kGreetingBytes);
  greeted_ = true;

  const uint32_t name_bytes = static_cast<uint32_t>(strlen(export_name_));
  uint8_t message[4 + 16 + 4 + kNameBytesMax + 2];
  uint8_t* end = Store32(message, flags & (kFixedNewstyle | kNoZeroes));
  end = Store64(end, kOptionMagic);
  end = Store32(end, kOptionGo);
  end = Store32(end, 4 + name_bytes + 2);
  end = Store32(end, name_bytes);
  memcpy(end, export_name_, name_bytes);
  end = Store16(end + name_bytes, 0);
  const ssize_t length = end - message;
  // The buffer of a new socket is empty and takes more than this.
  if (send(socket_.get(), message, static_cast<size_t>(length), MSG_NOSIGNAL) != length) {
    return problem.SayErrno(errno, "Cannot write to the server");
  }
  return true;
}

bool NbdClient::TakeOptionReply(Problem& problem) {
  while (state_ == State::kHandshake && received_ >= kOptionReplyBytes) {
    const uint32_t type = Load32(buffer_ + 12);
    const uint32_t length = Load32(buffer_ + 16);
    if (Load64(buffer_) != kOptionReplyMagic || Load32(buffer_ + 8) != kOptionGo ||
        length > kOptionPayloadMax) {
      return problem.Say("Cannot use the server: it sent what is no answer to the option GO");
    }
    if (received_ < kOptionReplyBytes + length) return true;
    if (type == kReplyUnknown) {
      return problem.Say("Cannot use the server: it has no export \"%s\"", export_name_);
    }
    if ((type & kReplyErrors) != 0) {
      return problem.Say("Cannot use the server: it refuses export \"%s\", error %" PRIu32 ": %.*s",
                         export_name_, type - kReplyErrors, static_cast<int>(length),
                         reinterpret_cast<const char*>(buffer_ + kOptionReplyBytes));
    }
    if (type == kReplyInfo && !TakeExport(length, problem)) return false;
    Drop(kOptionReplyBytes + length);
    if (type != kReplyAck) continue;
    if (!described_) {
      return problem.Say("Cannot use the server: it does not say the size of export \"%s\"",
                         export_name_);
    }
    state_ = State::kReady;
    if (received_ > 0) {
      return problem.Say("Cannot go on with the server: it answered what was not asked");
    }
  }
  return true;
}

bool NbdClient::TakeExport(uint32_t length, Problem& problem) {
  const uint8_t* info = buffer_ + kOptionReplyBytes;
  if (length < 2 || Load16(info) != kInfoExport) return true;
  if (length != 12) {
    return problem.Say("Cannot use the server: its description of an export is not understood");
  }
  size_bytes_ = Load64(info + 2);
  if (size_bytes_ > static_cast<uint64_t>(INT64_MAX)) {
    return problem.Say("Cannot use export \"%s\": it has more bytes than a file", export_name_);
  }
  described_ = true;
  return true;
}

void NbdClient::Drop(size_t bytes) {
  received_ -= bytes;
  if (received_ > 0) memmove(buffer_, buffer_ + bytes, received_);
}

bool NbdClient::QueueRead(uint64_t cookie, uint64_t offset, uint32_t length) {
  if (sizeof queue_ - queued_ < kRequestBytes) return false;
  uint8_t* end = Store32(queue_ + queued_, kRequestMagic);
  end = Store32(end, 0);  // No flags; READ is command 0.
  end = Store64(end, cookie);
  end = Store64(end, offset);
  end = Store32(end, length);
  queued_ = static_cast<size_t>(end - queue_);
  return true;
}

bool NbdClient::Send(Problem& problem) {
  if (queued_ == 0) return true;
  const ssize_t sent = send(socket_.get(), queue_, queued_, MSG_NOSIGNAL);
  if (sent < 0) {
    if (errno == EAGAIN || errno == EINTR) return true;
    return problem.SayErrno(errno, "Cannot write to the server");
  }
  queued_ -= static_cast<size_t>(sent);
  if (queued_ > 0) memmove(queue_, queue_ + sent, queued_);
  return true;
}

}  // namespace fusefile
