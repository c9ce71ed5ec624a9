/**
 * Prints the content of those pages of a directory's files that are in the page cache:
 *
 *     touched-pages DIR
 *
 * and on standard error the paths of these files in DIR, from its slash on.
 *
 * Meant for a file system that was mounted a moment ago on a device without read-ahead: its cached pages are what was
 * read since. Pages are found by mincore(2), in the order of the files' names; none is read that was not cached.
 */
#include <fcntl.h>
#include <fts.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr size_t PAGE_BYTES = 4096;

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

/** @return Whether there are any. */
bool print_cached(const char* path, size_t bytes) {
  const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) fail(path);
  void* map = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) fail(path);
  std::vector<unsigned char> cached((bytes + PAGE_BYTES - 1) / PAGE_BYTES);
  if (mincore(map, bytes, cached.data()) != 0) fail(path);
  // Reading one page must not bring its neighbours.
  madvise(map, bytes, MADV_RANDOM);
  bool any = false;
  for (size_t i = 0; i < cached.size(); i++) {
    if ((cached[i] & 1) == 0) continue;
    any = true;
    const size_t at = i * PAGE_BYTES;
    const size_t length = bytes - at < PAGE_BYTES ? bytes - at : PAGE_BYTES;
    if (fwrite(static_cast<char*>(map) + at, 1, length, stdout) != length) fail("write");
  }
  munmap(map, bytes);
  close(fd);
  return any;
}

int by_name(const FTSENT** a, const FTSENT** b) { return strcmp((*a)->fts_name, (*b)->fts_name); }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: touched-pages DIR\n");
    return 2;
  }
  char* paths[] = {argv[1], nullptr};
  FTS* tree = fts_open(paths, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, by_name);
  if (tree == nullptr) fail(argv[1]);
  while (const FTSENT* entry = fts_read(tree)) {
    const bool is_file = entry->fts_info == FTS_F && S_ISREG(entry->fts_statp->st_mode);
    if (is_file && entry->fts_statp->st_size > 0 &&
        print_cached(entry->fts_path, static_cast<size_t>(entry->fts_statp->st_size))) {
      fprintf(stderr, "%s\n", entry->fts_path + strlen(argv[1]));
    }
  }
  return fflush(stdout) == 0 ? 0 : 1;
}
