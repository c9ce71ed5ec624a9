// Which files have which blocks of an ext4, as far as its inode tables have been named. Structures: the kernel's
// Documentation/filesystems/ext4, "Super Block", "Block Group Descriptors", "Index Nodes" and "Extent Tree".
//
// The disk may be anyone's, so nothing in it is believed: what is damaged, or more than is needed here, is taken for metadata.
#pragma once

#include <cstdint>
#include <unordered_set>
#include <utility>
#include <vector>

namespace readpages {

constexpr uint32_t kBlockBytes = 4096;

struct File {
  uint32_t inode;
  uint32_t generation;
  // Places in the file.
  std::vector<uint32_t> blocks;
};

struct Sorted {
  // Places on the disk.
  std::vector<uint32_t> metadata;
  // In order of first use.
  std::vector<File> files;
};

class FileBlocks {
 public:
  // Reads from this descriptor from now on. False for a file system that is no ext4 with blocks of 4 KiB.
  bool Open(int device);

  // The blocks of inode tables among these.
  std::vector<uint32_t> InodeBlocks(const std::vector<uint32_t>& blocks) const;

  // Reads the inodes of the blocks first, and nothing but blocks that were named: others may be far away.
  Sorted Sort(const std::vector<uint32_t>& blocks);

 private:
  // Neighbouring blocks of a file.
  struct Part {
    uint32_t physical;
    uint32_t count;
    uint32_t logical;
    uint32_t inode;
    uint32_t generation;
  };

  // The number of its first inode; -1 for a block of no inode table.
  int64_t FirstInode(uint32_t block) const;
  void Learn(uint32_t block, uint32_t first);
  void AddParts(const uint8_t* node, uint32_t node_bytes, int depth, Part file);
  const Part* Find(uint32_t block) const;

  int device_ = -1;
  std::unordered_set<uint32_t> named_;
  uint64_t blocks_ = 0;
  uint32_t inodes_per_group_ = 0;
  uint32_t inode_bytes_ = 0;
  uint32_t table_blocks_ = 0;
  // The first block of each group's inode table, and the group, by block.
  std::vector<std::pair<uint32_t, uint32_t>> tables_;
  std::vector<Part> parts_;
};

}  // namespace readpages
