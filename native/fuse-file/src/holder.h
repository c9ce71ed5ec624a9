// The process that a device depends on once it exists: it answers the kernel's reads from any server
// that listens at the socket. Reads wait while there is none.
//
// Servers, which are daemons that get restarted:
//
//   1. When the connection ends, it connects again, by path, and asks for the same export: after
//      kRetryMinMs at first, every kRetryMaxMs later, for ever. It rejects an export of another size.
//   2. Every read is kept until it is answered, and sent again on the next connection. Reads change
//      nothing, so sending one twice is harmless.
//   3. No read waits for ever: after `absence_ms` without a server, all waiting and new reads get EIO
//      until there is one. A read that a server leaves unanswered for as long gets EIO too, and the
//      holder hangs up on that server.
//   4. If reads wait, a server counts as back only when it has answered one. So a server that accepts
//      and hangs up, or sends garbage, does not reset the limit.
//   5. A server's own error is EIO for that read.
//
// It starts on probation, tethered to the process that makes the device: until that process reports
// the device complete, the end of either it or the connection ends the holder, and with it all that
// was made so far.
//
// Memory: kRequestsMax records and one receive buffer. When all records are taken the kernel waits.

#pragma once

#include <cstdint>

#include "fuse_channel.h"
#include "nbd_client.h"
#include "system.h"

namespace fusefile {

class Holder final : private ReplySink {
 public:
  // Both strings outlive it.
  Holder(const char* socket_path, const char* export_name, int64_t absence_ms)
      : socket_path_(socket_path), export_name_(export_name), absence_ms_(absence_ms) {}

  // Connects for the first time; the size of the export is then that of the file for good.
  bool ConnectFirst(int64_t timeout_ms, Problem& problem);
  bool Mount(const char* path, Descriptor& root, Problem& problem);
  uint64_t size_bytes() const { return size_bytes_; }
  // Closes the mount and the connection, which the serving process keeps.
  void Abandon();

  // Serves until the mount is gone. A byte in `tether` ends the probation, and then the log goes to
  // `log`. False, with the problem, if the probation ends otherwise.
  bool Serve(Descriptor tether, int log, Problem& problem);

 private:
  struct Request {
    // FUSE's id of the request, which is never 0; 0 if the record is free.
    uint64_t unique = 0;
    uint64_t offset = 0;
    uint32_t length = 0;
    int64_t arrived_ms = 0;
  };

  uint32_t LengthOf(uint64_t cookie) override;
  void Answer(uint64_t cookie, uint32_t error, const uint8_t* data) override;

  bool TakeRequests();
  void Ask(uint32_t slot);
  void Refuse(uint32_t slot);
  void OnServer(short happened);
  void OnReady();
  void Lose(const Problem& why);
  void Reconnect();
  void KeepTime();
  bool absent() const { return doubt_ms_ != 0 && now_ms_ - doubt_ms_ > absence_ms_; }
  int TimeoutMs() const;
  int64_t TickMs() const;

  const char* const socket_path_;
  const char* const export_name_;
  const int64_t absence_ms_;
  uint64_t size_bytes_ = 0;

  FuseChannel fuse_;
  NbdClient nbd_;
  Request requests_[kRequestsMax];
  uint32_t free_[kRequestsMax];
  uint32_t free_count_ = 0;
  uint32_t waiting_count() const { return kRequestsMax - free_count_; }

  bool gone_ = false;
  bool on_probation_ = true;
  int64_t now_ms_ = 0;
  // Since when no server has answered; 0 while there is one.
  int64_t doubt_ms_ = 0;
  // When the first server of this doubt took the export: waiting reads then get their full time again.
  int64_t grace_ms_ = 0;
  int64_t handshake_until_ms_ = 0;
  int64_t retry_at_ms_ = 0;
  int64_t retry_ms_ = 0;
  Problem why_;
};

}  // namespace fusefile
