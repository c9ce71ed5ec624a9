// The part of generic netlink that single requests need. Each request has a new socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace genetlink {

// The kernel refused the request, or it could not be sent.
struct Failure {
  int error;             // errno
  std::string syscall;   // the request
  std::string message;   // the kernel's own words (extended ACK), where it has any
};

// The attributes of a request, in host byte order, each padded to 4 bytes.
class Attributes {
 public:
  void U32(uint16_t type, uint32_t value);
  void U64(uint16_t type, uint64_t value);
  void String(uint16_t type, std::string_view text);
  // Opens a nested attribute, which takes all attributes added until End(). Returns the argument for End().
  size_t Begin(uint16_t type);
  void End(size_t start);

  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  void Add(uint16_t type, const void* data, size_t length);

  std::vector<uint8_t> bytes_;
};

// One attribute of a reply. `data` points into the reply.
struct Attribute {
  uint16_t type;
  const uint8_t* data;
  size_t length;

  uint16_t U16() const;
  uint32_t U32() const;
};

// The attributes in [data, data + length), up to the first that does not fit.
std::vector<Attribute> Parse(const uint8_t* data, size_t length);

// Sends one command to a family and waits for the answer. The kernel does the command's work before it answers, so this
// can take as long. Returns the attributes of the reply, empty if there was only an acknowledgement.
// Throws Failure; ENOENT if there is no such family, ETIMEDOUT if no answer came.
std::vector<uint8_t> Request(const char* family, uint8_t command, const Attributes& attributes,
                             const char* what);

}  // namespace genetlink
