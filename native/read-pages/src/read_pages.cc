// Reads blocks of a mounted ext4 into the kernel's page cache:
//
//     read-pages DEVICE DIRECTORY [files] <frames
//
// DIRECTORY is where DEVICE is mounted. A frame is a u32, how many blocks follow, and their numbers, u32 each, little-endian; blocks
// have 4 KiB. A block of an inode table makes the files of its inodes known. A block of a known file goes into the cache of
// that file, any other into the cache of the device, which is where ext4 looks for its metadata; with `files` nowhere. Ends with its input, and with 0; with
// 1 and a line on stderr if the input is wrong, or DIRECTORY is not a mount of DEVICE with an ext4 of such blocks.
//
// A process of its own, as the program that starts it may serve the device: a thread of that program would wait for itself,
// and keep it from being ended.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "file_blocks.h"
#include "frame.h"

namespace {

// readahead(2) stops after what the device takes in one request, at least this.
constexpr uint64_t kStepBytes = 128 << 10;
// An inode and its generation: FILEID_INO32_GEN of the kernel's include/linux/exportfs.h.
constexpr int kInodeHandle = 1;

struct Descriptor {
  const int fd;
  explicit Descriptor(int opened) : fd(opened) {}
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

int Fail(const char* path, const char* why) {
  fprintf(stderr, "Cannot read ahead in %s: %s\n", path, why);
  return 1;
}

// -1 for anything but a regular file: to open a device or a pipe of the image would do something.
int OpenFile(int mount, uint32_t inode, uint32_t generation) {
  alignas(file_handle) char bytes[sizeof(file_handle) + 8];
  auto* handle = reinterpret_cast<file_handle*>(bytes);
  handle->handle_bytes = 8;
  handle->handle_type = kInodeHandle;
  memcpy(handle->f_handle, &inode, 4);
  memcpy(handle->f_handle + 4, &generation, 4);
  const int found = open_by_handle_at(mount, handle, O_PATH | O_CLOEXEC);
  if (found < 0) return -1;
  struct stat file;
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", found);
  const bool is_file = fstat(found, &file) == 0 && S_ISREG(file.st_mode);
  const int opened = is_file ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
  close(found);
  return opened;
}

// Names blocks to the kernel, neighbours together.
void ReadAhead(int file, const std::vector<uint32_t>& blocks) {
  for (size_t i = 0; i < blocks.size();) {
    size_t count = 1;
    while (i + count < blocks.size() && blocks[i + count] == blocks[i] + count &&
           count < kStepBytes / readpages::kBlockBytes) {
      count++;
    }
    const uint64_t offset = uint64_t{blocks[i]} * readpages::kBlockBytes;
    if (readahead(file, static_cast<off64_t>(offset), count * readpages::kBlockBytes) != 0) return;
    i += count;
  }
}

}  // namespace

int main(int count, char** arguments) {
  const bool is_files_only = count == 4 && strcmp(arguments[3], "files") == 0;
  if (count != 3 && !is_files_only) {
    fputs("Usage: read-pages DEVICE DIRECTORY [files] <frames\n", stderr);
    return 1;
  }
  const char* const path = arguments[1];
  const char* const directory = arguments[2];
  readpages::FileBlocks files;
  std::vector<uint32_t> blocks;
  for (;;) {
    const readpages::Input input = readpages::NextFrame(STDIN_FILENO, &blocks);
    if (input == readpages::Input::kEnd) return 0;
    if (input == readpages::Input::kWrong) return Fail("standard input", "a frame is cut or too long");
    // Nothing stays open while it waits, which would keep the mount and the device from going.
    const Descriptor device(open(path, O_RDONLY | O_CLOEXEC));
    if (device.fd < 0) return Fail(path, strerror(errno));
    const Descriptor mount(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (mount.fd < 0) return Fail(directory, strerror(errno));
    struct stat disk, root;
    if (fstat(device.fd, &disk) != 0) return Fail(path, strerror(errno));
    if (fstat(mount.fd, &root) != 0) return Fail(directory, strerror(errno));
    if (root.st_dev != disk.st_rdev) return Fail(directory, "it is not a mount of the device");
    if (!files.Open(device.fd)) return Fail(path, "it has no ext4 with blocks of 4 KiB");
    ReadAhead(device.fd, files.InodeBlocks(blocks));
    const readpages::Sorted sorted = files.Sort(blocks);
    if (!is_files_only) ReadAhead(device.fd, sorted.metadata);
    for (const readpages::File& file : sorted.files) {
      // A file that cannot be opened fails in the container, with its error.
      const Descriptor opened(OpenFile(mount.fd, file.inode, file.generation));
      if (opened.fd >= 0) ReadAhead(opened.fd, file.blocks);
    }
  }
}
