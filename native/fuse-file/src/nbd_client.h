// One connection to an NBD server on a unix socket: the fixed newstyle handshake with GO, then
// READs with simple replies, which may come in any order.
//
//   - Nothing blocks. The owner polls fd() for events() and calls Receive() and Send().
//   - The server is not trusted: bytes that answer no request are a problem, and so is an export
//     that is larger than a file can be. After a problem the owner must close the connection.
//   - Memory: one receive buffer and one send buffer.

#pragma once

#include <cstddef>
#include <cstdint>

#include "system.h"

namespace fusefile {

// Limits for the length of a READ and for the number in flight. A loop device has at most 128 in
// flight.
constexpr uint32_t kReadBytesMax = 1 << 20;
constexpr uint32_t kRequestsMax = 192;

// Receives the replies.
class ReplySink {
 public:
  // Length of the READ with this cookie; 0 if none was sent on this connection.
  virtual uint32_t LengthOf(uint64_t cookie) = 0;
  // `data` has LengthOf(cookie) bytes, unless `error` is not 0.
  virtual void Answer(uint64_t cookie, uint32_t error, const uint8_t* data) = 0;

 protected:
  ~ReplySink() = default;
};

class NbdClient {
 public:
  enum class State { kClosed, kHandshake, kReady };

  bool Connect(const char* socket_path, const char* export_name, Problem& problem);
  void Close();

  State state() const { return state_; }
  int fd() const { return socket_.get(); }
  short events() const;
  // Size of the export, when the state is kReady.
  uint64_t size_bytes() const { return size_bytes_; }

  // Takes the bytes that have arrived, once. False when the connection cannot be used any more.
  bool Receive(ReplySink& sink, Problem& problem);

  // Queues a READ. Send() sends the queue, as far as the socket takes it. False if the queue is full,
  // because the server answered reads that were not sent yet.
  bool QueueRead(uint64_t cookie, uint64_t offset, uint32_t length);
  bool Send(Problem& problem);

 private:
  static constexpr size_t kReplyHeaderBytes = 16;
  static constexpr size_t kRequestBytes = 28;
  // One whole reply, and behind it room for many small ones: all replies to 32 reads of 4 KiB.
  static constexpr size_t kReceiveBytes = kReadBytesMax + (256 << 10);

  bool TakeReplies(ReplySink& sink, Problem& problem);
  bool TakeGreeting(Problem& problem);
  bool TakeOptionReply(Problem& problem);
  bool TakeExport(uint32_t length, Problem& problem);
  void Drop(size_t bytes);

  Descriptor socket_;
  State state_ = State::kClosed;
  const char* export_name_ = nullptr;
  bool greeted_ = false;
  bool described_ = false;
  uint64_t size_bytes_ = 0;

  size_t received_ = 0;
  // Length of the reply at the start of the buffer, if it is long and incomplete.
  size_t reply_bytes_ = 0;
  size_t queued_ = 0;
  alignas(64) uint8_t queue_[kRequestsMax * kRequestBytes];
  alignas(4096) uint8_t buffer_[kReceiveBytes];
};

}  // namespace fusefile
