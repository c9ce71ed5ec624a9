#include "system.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace fusefile {

namespace {

// Limit for a log file: when it is reached, the log starts again from empty. A server that goes away
// and comes back causes two lines.
constexpr off_t kLogBytesMax = 64 << 10;

}  // namespace

bool Problem::Say(const char* format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  return false;
}

bool Problem::SayErrno(int error, const char* format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  const size_t used = strlen(text);
  snprintf(text + used, sizeof text - used, ": %s", strerror(error));
  return false;
}

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

void Log(const char* format, ...) {
  struct stat file;
  if (fstat(STDERR_FILENO, &file) == 0 && S_ISREG(file.st_mode) && file.st_size > kLogBytesMax) {
    if (ftruncate(STDERR_FILENO, 0) != 0) return;
  }
  const time_t now = time(nullptr);
  tm parts;
  gmtime_r(&now, &parts);
  char line[640];
  size_t used = strftime(line, sizeof line, "%FT%TZ ", &parts);
  va_list values;
  va_start(values, format);
  const int more = vsnprintf(line + used, sizeof line - used - 1, format, values);
  va_end(values);
  if (more > 0) used += static_cast<size_t>(more);
  if (used > sizeof line - 2) used = sizeof line - 2;
  line[used++] = '\n';
  // Standard error may be closed, or its disk full. No other place is left to report that.
  if (write(STDERR_FILENO, line, used) < 0) return;
}

}  // namespace fusefile
