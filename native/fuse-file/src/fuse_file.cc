// fuse-file SOCKET EXPORT FILE LOG SECONDS
//
// Makes a block device of an NBD export: mounts it as a FUSE file on FILE, puts a loop device on
// that, and leaves a process behind, the holder (holder.h), that outlives whoever called this. When
// the device answers reads, this prints one line and ends with status 0:
//
//     /dev/loopN
//
// Otherwise it says why on standard error and leaves nothing mounted or running; status 2 if this
// host lacks something, 1 if it is anything else. It takes less than 30 s however things are. FILE
// is an empty file, LOG is where the holder tells what becomes of its servers, SECONDS how long
// reads wait for one (holder.h).
//
// The holder ends when FILE is unmounted. Nothing that a terminal or a service manager does to the
// caller's processes reaches it, but a signal to itself: then the device answers EIO, and is to be
// taken away.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
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
constexpr long kSecondsMax = 24 * 3600;

int Fail(const Problem& problem) {
  fprintf(stderr, "%s\n", problem.text);
  return problem.lacking ? kHostLacks : kFailed;
}

// In the holder's process.
int Hold(Holder& holder, Descriptor tether, const Descriptor& log) {
  // A session of its own, no directory that could be unmounted, and nobody's pipes.
  setsid();
  Problem problem;
  const Descriptor nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (chdir("/") != 0 || dup2(nothing.get(), STDIN_FILENO) < 0 ||
      dup2(nothing.get(), STDOUT_FILENO) < 0) {
    problem.SayErrno(errno, "Cannot let go of the terminal");
    return Fail(problem);
  }
  // A disk must not wait for its server's pages to be read back from a disk. It works as well
  // without.
  mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
  return holder.Serve(std::move(tether), log.get(), problem) ? 0 : Fail(problem);
}

// In the caller's child, while the holder answers.
bool MakeDevice(const char* file, LoopDevice& loop, Problem& problem) {
  const Descriptor opened(open(file, O_RDONLY | O_CLOEXEC));
  if (!opened.ok()) return problem.SayErrno(errno, "Cannot open \"%s\"", file);
  // The kernel asks for the size only if somebody wants to know.
  struct stat known;
  if (fstat(opened.get(), &known) != 0) return problem.SayErrno(errno, "Cannot open \"%s\"", file);
  return loop.Attach(opened.get(), file, problem);
}

int Attach(const char* const* arguments, int64_t absence_ms) {
  const char* file = arguments[3];
  const char* log_path = arguments[4];
  Problem problem;
  const Descriptor log(open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
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
  if (!holder.ConnectFirst(kConnectMs, problem) || !holder.Mount(file, problem)) {
    return Fail(problem);
  }

  const pid_t pid = fork();
  if (pid == 0) {
    // It would keep itself alive.
    close(reins.get());
    exit(Hold(holder, std::move(tether), log));
  }
  LoopDevice loop;
  bool made = false;
  if (pid < 0) {
    problem.SayErrno(errno, "Cannot start a process");
  } else {
    holder.Abandon();
    tether.Close();
    made = MakeDevice(file, loop, problem);
  }
  if (made && loop.Probe(problem) && write(reins.get(), "", 1) == 1) {
    printf("%s\n", loop.path());
    return 0;
  }
  if (made) loop.Detach();
  if (umount2(file, 0) != 0) umount2(file, MNT_DETACH);
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
  // Whoever reads what this says may be gone.
  signal(SIGPIPE, SIG_IGN);
  return Attach(arguments, seconds * 1000);
}
