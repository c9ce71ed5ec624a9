// Shared by all parts of fuse-file: descriptors that close themselves, the clock, and one form for
// problems. No part of this program uses exceptions, or allocates memory once it serves.

#pragma once

#include <unistd.h>

#include <cstdint>

namespace fusefile {

// A descriptor, or none. Closed when it is replaced or goes out of scope.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor(Descriptor&& other) noexcept : fd_(other.Take()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    Reset(other.Take());
    return *this;
  }
  ~Descriptor() { Reset(-1); }

  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  void Close() { Reset(-1); }

 private:
  int Take() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void Reset(int fd) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

  int fd_ = -1;
};

// Why an action failed: the action, a colon, the state found. `lacking`: this host lacks or forbids
// something, so a retry does not help.
struct Problem {
  char text[512] = "";
  bool lacking = false;

  // Formats the text and returns false, so that a failing function can return the result.
  [[gnu::format(printf, 2, 3)]] bool Say(const char* format, ...);
  // The same, followed by ": " and the text of `error`.
  [[gnu::format(printf, 3, 4)]] bool SayErrno(int error, const char* format, ...);
};

// Milliseconds on the monotonic clock.
int64_t NowMs();

// Writes one line with the time to standard error. The log file is emptied when it reaches its limit.
[[gnu::format(printf, 1, 2)]] void Log(const char* format, ...);

}  // namespace fusefile
