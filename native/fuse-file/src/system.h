// What the parts of fuse-file share: descriptors that close themselves, the clock, and one way to
// say what went wrong. No part of this program uses exceptions, or allocates once it serves.

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

// Why something did not work: the action, a colon, the state found. `lacking` is for what this host
// does not have or does not allow, which trying again does not mend.
struct Problem {
  char text[512] = "";
  bool lacking = false;

  // Formats it, and is false, so that a failing function can return it.
  [[gnu::format(printf, 2, 3)]] bool Say(const char* format, ...);
  // The same with ": " and the text of `error` behind it.
  [[gnu::format(printf, 3, 4)]] bool SayErrno(int error, const char* format, ...);
};

// Of the monotonic clock.
int64_t NowMs();

// One line on standard error, with the time. Of what is written there: the log must not grow for
// ever.
[[gnu::format(printf, 1, 2)]] void Log(const char* format, ...);

}  // namespace fusefile
