// One connection to an NBD server on a unix socket: the fixed newstyle handshake with GO, then
// READs with simple replies, which may come in any order.
//
//   - Nothing blocks. Whoever owns it polls fd() for events() and calls Receive() and Send().
//   - What the server says is not trusted: bytes that are no answer to what was asked are a
//     problem, and so is an export that is larger than a file can be. After a problem the
//     connection is to be closed.
//   - Memory: one buffer for what arrives, one for what is to be sent.

#pragma once

#include <cstddef>
#include <cstdint>

#include "system.h"

namespace fusefile {

// What one READ asks for at most, and how many may be unanswered: more than a loop device has in
// flight (128).
constexpr uint32_t kReadBytesMax = 1 << 20;
constexpr uint32_t kRequestsMax = 192;

// Who is told of replies.
class ReplySink {
 public:
  // Length of the READ of this cookie; 0 if there is none that was sent on this connection.
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
  // Of the export, when the state is kReady.
  uint64_t size_bytes() const { return size_bytes_; }

  // Takes what has arrived, once. False when the connection is of no use any more.
  bool Receive(ReplySink& sink, Problem& problem);

  // Queues a READ; Send() sends what is queued, as far as the socket takes it. False if there is no
  // room, as a server has answered reads that were not sent yet.
  bool QueueRead(uint64_t cookie, uint64_t offset, uint32_t length);
  bool Send(Problem& problem);

 private:
  static constexpr size_t kReplyHeaderBytes = 16;
  static constexpr size_t kRequestBytes = 28;
  // A whole reply, and behind it room for many small ones: of a read of 4 KiB at depth 32, all.
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
  // How many bytes the reply at the start of the buffer has, if it is a long one that is not whole.
  size_t reply_bytes_ = 0;
  size_t queued_ = 0;
  alignas(64) uint8_t queue_[kRequestsMax * kRequestBytes];
  alignas(4096) uint8_t buffer_[kReceiveBytes];
};

}  // namespace fusefile
