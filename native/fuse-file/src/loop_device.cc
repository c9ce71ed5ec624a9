#include "loop_device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <utility>

namespace fusefile {

namespace {

// Others take free devices too, between our asking for one and taking it.
constexpr int kTriesMax = 1000;
// With many at once each gets EBUSY while another one configures its own: up to 5 ms of pause, chosen by chance, take turns.
constexpr unsigned kPauseMicrosecondsMax = 5000;
constexpr size_t kProbeBytes = 512;

}  // namespace

bool LoopDevice::Attach(int file, const char* file_path, Problem& problem) {
  const Descriptor control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control.ok()) {
    problem.lacking = true;
    return problem.SayErrno(errno, "Cannot open \"/dev/loop-control\"");
  }
  std::minstd_rand random(static_cast<unsigned>(getpid()));
  for (int tries = 0; tries < kTriesMax; tries++) {
    const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return problem.SayErrno(errno, "Cannot get a free loop device");
    snprintf(path_, sizeof path_, "/dev/loop%d", number);
    Descriptor opened(open(path_, O_RDONLY | O_CLOEXEC | O_DIRECT));
    if (!opened.ok()) {
      problem.lacking = errno == ENOENT;
      return problem.SayErrno(errno, "Cannot open \"%s\"", path_);
    }
    loop_config config = {};
    config.fd = static_cast<unsigned>(file);
    config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_DIRECT_IO;
    // losetup shows this name where it cannot read /sys. A longer path is cut off.
    strncpy(reinterpret_cast<char*>(config.info.lo_file_name), file_path, LO_NAME_SIZE - 1);
    if (ioctl(opened.get(), LOOP_CONFIGURE, &config) == 0) {
      device_ = std::move(opened);
      return true;
    }
    if (errno != EBUSY) {
      return problem.SayErrno(errno, "Cannot put \"%s\" behind \"%s\"", file_path, path_);
    }
    opened.Close();
    usleep(static_cast<unsigned>(random() % kPauseMicrosecondsMax));
  }
  return problem.Say("Cannot get a free loop device: others were first, %d times", kTriesMax);
}

bool LoopDevice::Probe(Problem& problem) {
  alignas(4096) char sector[kProbeBytes];
  if (pread(device_.get(), sector, sizeof sector, 0) < 0) {
    return problem.SayErrno(errno, "Cannot read \"%s\"", path_);
  }
  return true;
}

void LoopDevice::Detach() {
  ioctl(device_.get(), LOOP_CLR_FD);
  device_.Close();
}

}  // namespace fusefile
