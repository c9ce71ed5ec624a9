#include "genetlink.h"

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace genetlink {

namespace {

// The kernel does the work inside send(), so the answer is there already when this wait begins.
constexpr int kReceiveSeconds = 10;
constexpr uint32_t kSequence = 1;

constexpr size_t Padded(size_t length) { return (length + 3) & ~size_t{3}; }

class Socket {
 public:
  explicit Socket(const char* what) : what_(what) {
    fd_ = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
    if (fd_ < 0) Fail(errno);
    const timeval limit{kReceiveSeconds, 0};
    const int on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd_, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
    setsockopt(fd_, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
  }
  ~Socket() { if (fd_ >= 0) close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  std::vector<uint8_t> Request(uint16_t family, uint8_t command, uint8_t version,
                               const Attributes& attributes) {
    Send(family, command, version, attributes);
    std::vector<uint8_t> reply;
    std::vector<uint8_t> datagram;
    for (;;) {
      Receive(datagram);
      size_t left = datagram.size();
      const uint8_t* at = datagram.data();
      while (left >= sizeof(nlmsghdr)) {
        nlmsghdr header;
        memcpy(&header, at, sizeof(header));
        if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > left) break;
        if (header.nlmsg_seq == kSequence) {
          if (header.nlmsg_type == NLMSG_ERROR) {
            Acknowledged(header, at);
            return reply;
          }
          constexpr size_t kFront = sizeof(nlmsghdr) + sizeof(genlmsghdr);
          if (header.nlmsg_type == family && header.nlmsg_len >= kFront) {
            reply.assign(at + kFront, at + header.nlmsg_len);
          }
        }
        const size_t step = Padded(header.nlmsg_len);
        if (step >= left) break;
        at += step;
        left -= step;
      }
    }
  }

 private:
  [[noreturn]] void Fail(int error, std::string message = {}) const {
    throw Failure{error, what_, std::move(message)};
  }

  void Send(uint16_t family, uint8_t command, uint8_t version, const Attributes& attributes) {
    const auto& payload = attributes.bytes();
    nlmsghdr header{};
    header.nlmsg_len = sizeof(nlmsghdr) + sizeof(genlmsghdr) + payload.size();
    header.nlmsg_type = family;
    header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    header.nlmsg_seq = kSequence;
    genlmsghdr generic{};
    generic.cmd = command;
    generic.version = version;
    std::vector<uint8_t> message(header.nlmsg_len);
    memcpy(message.data(), &header, sizeof(header));
    memcpy(message.data() + sizeof(header), &generic, sizeof(generic));
    if (!payload.empty()) {
      memcpy(message.data() + sizeof(header) + sizeof(generic), payload.data(), payload.size());
    }
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    ssize_t sent;
    do {
      sent = sendto(fd_, message.data(), message.size(), 0,
                    reinterpret_cast<const sockaddr*>(&kernel), sizeof(kernel));
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) Fail(errno);
  }

  // Receives one datagram of any size: the list of devices grows with their number.
  void Receive(std::vector<uint8_t>& datagram) {
    ssize_t size;
    do {
      size = recv(fd_, nullptr, 0, MSG_PEEK | MSG_TRUNC);
    } while (size < 0 && errno == EINTR);
    if (size < 0) Fail(errno == EAGAIN ? ETIMEDOUT : errno);
    datagram.resize(static_cast<size_t>(size));
    size = recv(fd_, datagram.data(), datagram.size(), 0);
    if (size < 0) Fail(errno);
    datagram.resize(static_cast<size_t>(size));
  }

  // Throws the error of an acknowledgement, if it has one.
  void Acknowledged(const nlmsghdr& header, const uint8_t* at) const {
    constexpr size_t kFront = sizeof(nlmsghdr) + sizeof(nlmsgerr);
    if (header.nlmsg_len < kFront) Fail(EBADMSG);
    nlmsgerr body;
    memcpy(&body, at + sizeof(nlmsghdr), sizeof(body));
    if (body.error == 0) return;
    std::string message;
    // With NETLINK_CAP_ACK the request is not repeated, and the attributes follow its header.
    if ((header.nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
      for (const auto& each : Parse(at + kFront, header.nlmsg_len - kFront)) {
        if (each.type != NLMSGERR_ATTR_MSG) continue;
        const auto* text = reinterpret_cast<const char*>(each.data);
        message.assign(text, strnlen(text, each.length));
      }
    }
    Fail(-body.error, std::move(message));
  }

  int fd_ = -1;
  const char* what_;
};

}  // namespace

void Attributes::Add(uint16_t type, const void* data, size_t length) {
  nlattr header{};
  header.nla_len = static_cast<uint16_t>(sizeof(header) + length);
  header.nla_type = type;
  const size_t at = bytes_.size();
  bytes_.resize(at + Padded(sizeof(header) + length));
  memcpy(bytes_.data() + at, &header, sizeof(header));
  if (length > 0) memcpy(bytes_.data() + at + sizeof(header), data, length);
}

void Attributes::U32(uint16_t type, uint32_t value) { Add(type, &value, sizeof(value)); }

void Attributes::U64(uint16_t type, uint64_t value) { Add(type, &value, sizeof(value)); }

void Attributes::String(uint16_t type, std::string_view text) {
  Add(type, std::string(text).c_str(), text.size() + 1);
}

size_t Attributes::Begin(uint16_t type) {
  const size_t start = bytes_.size();
  Add(type | NLA_F_NESTED, nullptr, 0);
  return start;
}

void Attributes::End(size_t start) {
  const auto length = static_cast<uint16_t>(bytes_.size() - start);
  memcpy(bytes_.data() + start + offsetof(nlattr, nla_len), &length, sizeof(length));
}

uint16_t Attribute::U16() const {
  uint16_t value = 0;
  if (length >= sizeof(value)) memcpy(&value, data, sizeof(value));
  return value;
}

uint32_t Attribute::U32() const {
  uint32_t value = 0;
  if (length >= sizeof(value)) memcpy(&value, data, sizeof(value));
  return value;
}

std::vector<Attribute> Parse(const uint8_t* data, size_t length) {
  std::vector<Attribute> found;
  while (length >= sizeof(nlattr)) {
    nlattr header;
    memcpy(&header, data, sizeof(header));
    if (header.nla_len < sizeof(header) || header.nla_len > length) break;
    const auto type = static_cast<uint16_t>(header.nla_type & NLA_TYPE_MASK);
    found.push_back({type, data + sizeof(header), header.nla_len - sizeof(header)});
    const size_t step = Padded(header.nla_len);
    if (step >= length) break;
    data += step;
    length -= step;
  }
  return found;
}

std::vector<uint8_t> Request(const char* family, uint8_t command, const Attributes& attributes,
                             const char* what) {
  Socket socket(what);
  Attributes name;
  name.String(CTRL_ATTR_FAMILY_NAME, family);
  const auto reply = socket.Request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1, name);
  for (const auto& each : Parse(reply.data(), reply.size())) {
    if (each.type == CTRL_ATTR_FAMILY_ID) {
      return socket.Request(each.U16(), command, 1, attributes);
    }
  }
  throw Failure{ENOENT, what, {}};
}

}  // namespace genetlink
