// fuse-file SOCKET EXPORT FILE LOG SECONDS
//
// Makes a block device of an NBD export: a FUSE file, which no path leads to (fuse_channel.h), behind
// a loop device. A second process, the holder (holder.h), outlives the caller. When the device answers
// reads, this prints one line and ends with status 0:
//
//     /dev/loopN PID-OF-THE-HOLDER
//
// Otherwise it prints the reason on standard error and leaves no device and no process; status 2 if this
// host lacks something, 1 for anything else. It takes less than 30 s in any case. FILE is an absolute
// path that need not exist: the kernel shows it as the file behind the loop device. LOG is where the
// holder logs, SECONDS how long reads wait for a server (holder.h).
//
// The holder ends when the loop device is detached. No action of a terminal or a service manager on the
// caller's processes reaches it, except a signal to the holder itself: then the device is dead, and
// answers EIO until it is detached.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "holder.h"
#include "loop_device.h"
#include "system.h"

using fusefile::Descriptor;
using fusefile::Holder;
using fusefile::LoopDevice;
using fusefile::Problem;

namespace {

constexpr int kFailed = 1;
constexpr int kHostLacks = 2;
constexpr int64_t kConnectMs = 10'000;
constexpr long kSecondsMax = 25 * 3600;

int Fail(const Problem& problem) {
  fprintf(stderr, "%s\n", problem.text);
  return problem.lacking ? kHostLacks : kFailed;
}

// In the holder's process.
int Hold(Holder& holder, Descriptor tether, const Descriptor& log) {
  // Leave the caller's session, a directory that could be unmounted, and the caller's pipes.
  setsid();
  Problem problem;
  const Descriptor nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (chdir("/") != 0 || dup2(nothing.get(), STDIN_FILENO) < 0 ||
      dup2(nothing.get(), STDOUT_FILENO) < 0) {
    problem.SayErrno(errno, "Cannot let go of the terminal");
    return Fail(problem);
  }
  // A disk must not wait for its server's pages to be read back from a disk. Failure is harmless.
  mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
  return holder.Serve(std::move(tether), log.get(), problem) ? 0 : Fail(problem);
}

// In the caller's child, while the holder answers.
bool MakeDevice(const Descriptor& root, const char* file, LoopDevice& loop, Problem& problem) {
  const char* below = file + strspn(file, "/");
  const Descriptor opened(openat(root.get(), below, O_RDONLY | O_CLOEXEC));
  if (!opened.ok()) return problem.SayErrno(errno, "Cannot open \"%s\"", file);
  // The kernel asks the file system for the size only on a stat call.
  struct stat known;
  if (fstat(opened.get(), &known) != 0) return problem.SayErrno(errno, "Cannot open \"%s\"", file);
  return loop.Attach(opened.get(), file, problem);
}

int Attach(const char* const* arguments, int64_t absence_ms) {
  const char* file = arguments[3];
  const char* log_path = arguments[4];
  Problem problem;
  Descriptor log(open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!log.ok() && (errno == ENOSPC || errno == EDQUOT || errno == ENOENT)) {
    // A full disk has no room for a log, or not even for its directory. The device works without.
    log = Descriptor(open("/dev/null", O_WRONLY | O_CLOEXEC));
  }
  if (!log.ok()) {
    problem.SayErrno(errno, "Cannot open \"%s\"", log_path);
    return Fail(problem);
  }
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    problem.SayErrno(errno, "Cannot make a pipe");
    return Fail(problem);
  }
  Descriptor tether(ends[0]);
  const Descriptor reins(ends[1]);
  // A megabyte of buffers: not on the stack.
  static Holder holder(arguments[1], arguments[2], absence_ms);
  // The mount lives as long as a descriptor of it: this one, and then that of the loop driver.
  Descriptor root;
  if (!holder.ConnectFirst(kConnectMs, problem) || !holder.Mount(file, root, problem)) {
    return Fail(problem);
  }

  const pid_t pid = fork();
  if (pid == 0) {
    // With its own copy the holder would keep itself alive.
    close(reins.get());
    root.Close();
    exit(Hold(holder, std::move(tether), log));
  }
  LoopDevice loop;
  bool made = false;
  if (pid < 0) {
    problem.SayErrno(errno, "Cannot start a process");
  } else {
    holder.Abandon();
    tether.Close();
    made = MakeDevice(root, file, loop, problem);
  }
  if (made && loop.Probe(problem) && write(reins.get(), "", 1) == 1) {
    printf("%s %d\n", loop.path(), static_cast<int>(pid));
    return 0;
  }
  if (made) loop.Detach();
  return Fail(problem);
}

}  // namespace

int main(int count, char** arguments) {
  char* end = nullptr;
  const long seconds = count == 6 ? strtol(arguments[5], &end, 10) : 0;
  if (seconds < 1 || seconds > kSecondsMax || *end != '\0') {
    fprintf(stderr, "Usage: fuse-file SOCKET EXPORT FILE LOG SECONDS\n");
    return kFailed;
  }
  // The reader of our output may be gone.
  signal(SIGPIPE, SIG_IGN);
  return Attach(arguments, seconds * 1000);
}
