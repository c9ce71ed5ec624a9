/**
 * Joins two network namespaces by a link of a given rate, delay and queue.
 *
 *     link-shaper NETNS_A NETNS_B RATE_BITS DELAY_US QUEUE_BYTES
 *
 * Makes a TUN device named `obdlink` in each namespace (paths such as /run/netns/NAME), prints "ready", and forwards
 * packets until its standard input ends. RATE_BITS per second holds for each direction; 0 sets no limit. A packet
 * occupies the link for its bytes on the wire, Ethernet's framing included, then arrives DELAY_US later. A packet
 * that finds more than QUEUE_BYTES before it is dropped.
 *
 * The devices have segmentation offload, so one read carries up to 64 KiB of TCP payload: forwarding a gigabit costs
 * little CPU time. The TCP stacks still see segments of the device's MTU. Runs with SCHED_FIFO, so that a busy machine
 * does not slow the link; without the right to that it says so on standard error.
 */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

namespace {

/** virtio_net_hdr, whose header file is no C++. */
struct OffloadHeader {
  uint8_t flags;
  uint8_t gso_type;
  uint16_t header_bytes;
  uint16_t segment_bytes;
  uint16_t checksum_start;
  uint16_t checksum_offset;
};

/** A TUN packet with segmentation offload: a virtio header and at most 64 KiB. */
constexpr size_t PACKET_BYTES_MAX = sizeof(OffloadHeader) + 65536;
/** Packets under way in one direction of a link without a rate limit; more are dropped. */
constexpr size_t IN_FLIGHT_BYTES_MAX = 256u << 20;
/** Preamble, addresses, type, checksum and gap of one Ethernet frame. */
constexpr uint64_t FRAME_BYTES = 38;
constexpr int PRIORITY = 50;
constexpr uint64_t SECOND_NS = 1'000'000'000;

[[noreturn]] void fail(const char* what) {
  fprintf(stderr, "link-shaper: %s: %s\n", what, strerror(errno));
  exit(1);
}

uint64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * SECOND_NS + static_cast<uint64_t>(t.tv_nsec);
}

int open_device(const char* netns) {
  const int ns = open(netns, O_RDONLY | O_CLOEXEC);
  if (ns < 0 || setns(ns, CLONE_NEWNET) != 0) fail(netns);
  close(ns);
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) fail("/dev/net/tun");
  ifreq request{};
  request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  strcpy(request.ifr_name, "obdlink");
  if (ioctl(fd, TUNSETIFF, &request) != 0) fail("TUNSETIFF");
  if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) != 0) fail("TUNSETOFFLOAD");
  return fd;
}

/** Bytes that a packet occupies on the wire, once it is cut into segments. */
uint64_t wire_bytes(const uint8_t* packet, size_t length) {
  OffloadHeader header;
  memcpy(&header, packet, sizeof header);
  const uint64_t bytes = length - sizeof header;
  if (header.gso_type == 0 || header.segment_bytes == 0 || bytes <= header.header_bytes) {
    return bytes + FRAME_BYTES;
  }
  const uint64_t payload = bytes - header.header_bytes;
  const uint64_t segments = (payload + header.segment_bytes - 1) / header.segment_bytes;
  return payload + segments * (header.header_bytes + FRAME_BYTES);
}

struct Packet {
  uint64_t due;
  std::vector<uint8_t> bytes;
};

/** One direction of the link. */
class Lane {
 public:
  Lane(int from, int to, uint64_t rate, uint64_t delay, uint64_t queue)
      : from_(from), to_(to), rate_(rate), delay_(delay), queue_(queue) {}

  int from() const { return from_; }

  /** When the next packet arrives; UINT64_MAX with none under way. */
  uint64_t due() const { return packets_.empty() ? UINT64_MAX : packets_.front().due; }

  void receive() {
    static uint8_t buffer[PACKET_BYTES_MAX];
    for (;;) {
      const ssize_t length = read(from_, buffer, sizeof buffer);
      if (length < 0) {
        if (errno == EAGAIN || errno == EINTR) return;
        fail("read");
      }
      const auto size = static_cast<size_t>(length);
      if (size >= sizeof(OffloadHeader)) accept(buffer, size);
    }
  }

  void deliver(uint64_t until) {
    while (due() <= until) {
      const auto& bytes = packets_.front().bytes;
      // A device that takes no packet now drops it, as a full receiver would.
      if (write(to_, bytes.data(), bytes.size()) < 0 && errno == EBADF) fail("write");
      in_flight_ -= bytes.size();
      packets_.pop_front();
    }
  }

 private:
  void accept(const uint8_t* packet, size_t length) {
    const uint64_t at = now();
    uint64_t sent = at;
    if (rate_ > 0) {
      const uint64_t start = busy_until_ > at ? busy_until_ : at;
      const uint64_t backlog = (start - at) * (rate_ / 8) / SECOND_NS;
      if (backlog > queue_) return;
      sent = start + wire_bytes(packet, length) * 8 * SECOND_NS / rate_;
      busy_until_ = sent;
    } else if (in_flight_ > IN_FLIGHT_BYTES_MAX) {
      return;
    }
    in_flight_ += length;
    packets_.push_back({sent + delay_, {packet, packet + length}});
  }

  const int from_;
  const int to_;
  const uint64_t rate_;
  const uint64_t delay_;
  const uint64_t queue_;
  uint64_t busy_until_ = 0;
  size_t in_flight_ = 0;
  std::deque<Packet> packets_;
};

void run_first() {
  sched_param param{};
  param.sched_priority = PRIORITY;
  if (sched_setscheduler(0, SCHED_FIFO, &param) != 0 || mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
    fprintf(stderr, "link-shaper: no real-time priority, other load may slow the link: %s\n", strerror(errno));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: link-shaper NETNS_A NETNS_B RATE_BITS DELAY_US QUEUE_BYTES\n");
    return 2;
  }
  const uint64_t rate = strtoull(argv[3], nullptr, 10);
  const uint64_t delay = strtoull(argv[4], nullptr, 10) * 1000;
  const uint64_t queue = strtoull(argv[5], nullptr, 10);
  const int a = open_device(argv[1]);
  const int b = open_device(argv[2]);
  Lane lanes[] = {{a, b, rate, delay, queue}, {b, a, rate, delay, queue}};
  run_first();
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    uint64_t due = UINT64_MAX;
    for (const Lane& lane : lanes) due = lane.due() < due ? lane.due() : due;
    timespec wait{};
    const uint64_t at = now();
    if (due > at && due != UINT64_MAX) {
      wait.tv_sec = static_cast<time_t>((due - at) / SECOND_NS);
      wait.tv_nsec = static_cast<long>((due - at) % SECOND_NS);
    }
    pollfd fds[] = {{a, POLLIN, 0}, {b, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    if (ppoll(fds, 3, due == UINT64_MAX ? nullptr : &wait, nullptr) < 0 && errno != EINTR) fail("ppoll");
    char ignored;
    if (fds[2].revents != 0 && read(STDIN_FILENO, &ignored, 1) <= 0) return 0;
    for (size_t i = 0; i < 2; i++) {
      if ((fds[i].revents & (POLLIN | POLLERR)) != 0) lanes[i].receive();
      lanes[i].deliver(now());
    }
  }
}
