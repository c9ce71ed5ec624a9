#include "file_blocks.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace readpages {

namespace {

constexpr uint32_t kSuperblockAt = 1024;
constexpr uint32_t kSuperblockBytes = 1024;
constexpr uint16_t kMagic = 0xef53;
constexpr uint32_t kMetaGroups = 0x10;
constexpr uint32_t kWideDescriptors = 0x80;
// 4 MiB of descriptors: 16 TiB.
constexpr uint64_t kGroupsMax = 1 << 17;
constexpr uint32_t kExtentsFlag = 0x80000;
constexpr uint16_t kExtentMagic = 0xf30a;
constexpr uint32_t kExtentHeaderBytes = 12;
constexpr uint32_t kExtentBytes = 12;
// Longer ones are allocated, and not written.
constexpr uint32_t kExtentBlocksMax = 32768;
// Files of more than 1360 extents are left out.
constexpr int kDepthMax = 1;
// 2.5 MiB. A start touches a few thousand files.
constexpr size_t kPartsMax = 1 << 17;

uint16_t U16(const uint8_t* bytes) { return static_cast<uint16_t>(bytes[0] | bytes[1] << 8); }

uint32_t U32(const uint8_t* bytes) {
  return U16(bytes) | static_cast<uint32_t>(U16(bytes + 2)) << 16;
}

bool ReadAt(int device, void* target, size_t bytes, uint64_t offset) {
  return pread(device, target, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
}

}  // namespace

bool FileBlocks::Open(int device) {
  device_ = device;
  if (!tables_.empty()) return true;
  uint8_t super[kSuperblockBytes];
  if (!ReadAt(device_, super, sizeof super, kSuperblockAt) || U16(super + 0x38) != kMagic) {
    return false;
  }
  blocks_ = U32(super + 0x4);
  const uint32_t blocks_per_group = U32(super + 0x20);
  inodes_per_group_ = U32(super + 0x28);
  inode_bytes_ = U16(super + 0x58);
  const uint32_t features = U32(super + 0x60);
  const bool is_wide = (features & kWideDescriptors) != 0;
  const uint32_t descriptor_bytes = is_wide ? U16(super + 0xfe) : 32;
  // The first revision has no such fields.
  const bool is_sound = U32(super + 0x4c) > 0 && U32(super + 0x18) == 2 &&
                        blocks_ > 0 && blocks_per_group > 0 &&
                        (inode_bytes_ == 128 || inode_bytes_ == 256) &&
                        (descriptor_bytes == 32 || descriptor_bytes == 64) &&
                        inodes_per_group_ > 0 && inodes_per_group_ <= 8 * kBlockBytes &&
                        (features & kMetaGroups) == 0;
  const uint64_t groups = is_sound ? (blocks_ + blocks_per_group - 1) / blocks_per_group : 0;
  if (!is_sound || groups > kGroupsMax) return false;
  table_blocks_ = (inodes_per_group_ * inode_bytes_ + kBlockBytes - 1) / kBlockBytes;
  std::vector<uint8_t> descriptors(groups * descriptor_bytes);
  if (!ReadAt(device_, descriptors.data(), descriptors.size(), kBlockBytes)) return false;
  for (uint32_t group = 0; group < groups; group++) {
    tables_.emplace_back(U32(&descriptors[group * descriptor_bytes + 0x8]), group);
  }
  std::sort(tables_.begin(), tables_.end());
  return true;
}

int64_t FileBlocks::FirstInode(uint32_t block) const {
  const auto after = std::upper_bound(tables_.begin(), tables_.end(),
                                      std::pair<uint32_t, uint32_t>(block, UINT32_MAX));
  if (after == tables_.begin()) return -1;
  const auto& [table, group] = *(after - 1);
  if (block - table >= table_blocks_) return -1;
  return uint64_t{group} * inodes_per_group_ +
         uint64_t{block - table} * (kBlockBytes / inode_bytes_) + 1;
}

std::vector<uint32_t> FileBlocks::InodeBlocks(const std::vector<uint32_t>& blocks) const {
  std::vector<uint32_t> found;
  for (const uint32_t block : blocks) {
    if (FirstInode(block) >= 0) found.push_back(block);
  }
  return found;
}

Sorted FileBlocks::Sort(const std::vector<uint32_t>& blocks) {
  named_.insert(blocks.begin(), blocks.end());
  for (const uint32_t block : blocks) {
    const int64_t first = FirstInode(block);
    if (first >= 0) Learn(block, static_cast<uint32_t>(first));
  }
  std::sort(parts_.begin(), parts_.end(),
            [](const Part& a, const Part& b) { return a.physical < b.physical; });
  Sorted sorted;
  std::unordered_map<uint32_t, size_t> places;
  for (const uint32_t block : blocks) {
    const Part* const part = Find(block);
    if (part == nullptr) {
      sorted.metadata.push_back(block);
      continue;
    }
    const auto [place, is_new] = places.try_emplace(part->inode, sorted.files.size());
    if (is_new) sorted.files.push_back({part->inode, part->generation, {}});
    sorted.files[place->second].blocks.push_back(part->logical + block - part->physical);
  }
  return sorted;
}

void FileBlocks::Learn(uint32_t block, uint32_t first) {
  uint8_t inodes[kBlockBytes];
  if (!ReadAt(device_, inodes, sizeof inodes, uint64_t{block} * kBlockBytes)) return;
  const uint32_t per_block = kBlockBytes / inode_bytes_;
  for (uint32_t i = 0; i < per_block; i++) {
    const uint8_t* const inode = inodes + i * inode_bytes_;
    const bool is_file = (U16(inode) & S_IFMT) == S_IFREG && U16(inode + 0x1a) > 0;
    if (!is_file || (U32(inode + 0x20) & kExtentsFlag) == 0) continue;
    AddParts(inode + 0x28, 60, kDepthMax, {0, 0, 0, first + i, U32(inode + 0x64)});
  }
}

// At most `depth` levels of nodes below this one.
void FileBlocks::AddParts(const uint8_t* node, uint32_t node_bytes, int depth, Part file) {
  const uint32_t records = U16(node + 2);
  const uint32_t below = U16(node + 6);
  const uint32_t room = (node_bytes - kExtentHeaderBytes) / kExtentBytes;
  if (U16(node) != kExtentMagic || records > room || below > static_cast<uint32_t>(depth)) return;
  for (uint32_t i = 0; i < records && parts_.size() < kPartsMax; i++) {
    const uint8_t* const record = node + kExtentHeaderBytes + i * kExtentBytes;
    if (below > 0) {
      uint8_t child[kBlockBytes];
      const uint32_t block = U32(record + 4);
      const uint64_t offset = uint64_t{block} * kBlockBytes;
      if (!named_.contains(block) || !ReadAt(device_, child, sizeof child, offset)) continue;
      AddParts(child, sizeof child, depth - 1, file);
      continue;
    }
    file.logical = U32(record);
    file.count = U16(record + 4);
    file.physical = U32(record + 8);
    if (file.count <= kExtentBlocksMax) parts_.push_back(file);
  }
}

const FileBlocks::Part* FileBlocks::Find(uint32_t block) const {
  const auto after =
      std::upper_bound(parts_.begin(), parts_.end(), block,
                       [](uint32_t wanted, const Part& part) { return wanted < part.physical; });
  if (after == parts_.begin()) return nullptr;
  const Part& part = *(after - 1);
  return block - part.physical < part.count ? &part : nullptr;
}

}  // namespace readpages
