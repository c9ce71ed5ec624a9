#include "holder.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstring>

namespace fusefile {

namespace {

constexpr int64_t kRetryMinMs = 20;
// A killed server is back within a second, and each retry costs microseconds.
constexpr int64_t kRetryMaxMs = 100;
// A server answers in a millisecond; one whose event loop is busy, later.
constexpr int64_t kHandshakeMs = 10'000;
// The device takes milliseconds to make, as the first bytes are local by then.
constexpr int64_t kProbationMs = 10'000;
// How often the limits are checked.
constexpr int64_t kTickMs = 500;

}  // namespace

bool Holder::ConnectFirst(int64_t timeout_ms, Problem& problem) {
  if (!nbd_.Connect(socket_path_, export_name_, problem)) return false;
  const int64_t deadline = NowMs() + timeout_ms;
  while (nbd_.state() != NbdClient::State::kReady) {
    const int64_t rest = deadline - NowMs();
    pollfd server = {nbd_.fd(), nbd_.events(), 0};
    const int ready = poll(&server, 1, static_cast<int>(std::max<int64_t>(rest, 0)));
    if (ready < 0 && errno != EINTR) return problem.SayErrno(errno, "Cannot wait for the server");
    if (ready > 0 && !nbd_.Receive(*this, problem)) return false;
    if (rest <= 0) {
      return problem.Say("Cannot use the server at \"%s\": no answer after %" PRId64 " ms",
                         socket_path_, timeout_ms);
    }
  }
  size_bytes_ = nbd_.size_bytes();
  return true;
}

bool Holder::Mount(const char* path, Descriptor& root, Problem& problem) {
  return fuse_.Mount(path, size_bytes_, root, problem);
}

void Holder::Abandon() {
  fuse_.Close();
  nbd_.Close();
}

bool Holder::Serve(Descriptor tether, int log, Problem& problem) {
  for (uint32_t slot = 0; slot < kRequestsMax; slot++) free_[free_count_++] = slot;
  now_ms_ = NowMs();
  const int64_t probation_until_ms = now_ms_ + kProbationMs;
  int64_t tick_ms = now_ms_;
  while (!gone_) {
    // poll() skips entries with a negative descriptor. It reports the end of the mount (POLLERR) even
    // when no events are requested.
    pollfd files[3] = {
        {fuse_.fd(), free_count_ > 0 ? short{POLLIN} : short{0}, 0},
        {nbd_.fd(), nbd_.events(), 0},
        {tether.get(), POLLIN, 0},
    };
    const int ready = poll(files, 3, TimeoutMs());
    if (ready < 0 && errno != EINTR) return problem.SayErrno(errno, "Cannot wait for requests");
    now_ms_ = NowMs();
    if (ready > 0) {
      if (files[1].revents != 0) OnServer(files[1].revents);
      if ((files[0].revents & POLLERR) != 0) break;
      if ((files[0].revents & POLLIN) != 0 && !TakeRequests()) break;
      if (files[2].revents != 0) {
        char said;
        if (read(tether.get(), &said, 1) != 1) {
          return problem.Say("Cannot hold the device: it was given up");
        }
        tether.Close();
        on_probation_ = false;
        dup2(log, STDERR_FILENO);
      }
      Problem unsent;
      if (nbd_.state() == NbdClient::State::kReady && !nbd_.Send(unsent)) Lose(unsent);
    }
    if (on_probation_ && nbd_.state() == NbdClient::State::kClosed) {
      problem = why_;
      return false;
    }
    if (on_probation_ && now_ms_ > probation_until_ms) {
      return problem.Say("Cannot use the server: it leaves the first reads unanswered");
    }
    if (now_ms_ - tick_ms >= TickMs() || nbd_.state() != NbdClient::State::kReady) {
      tick_ms = now_ms_;
      KeepTime();
    }
  }
  return true;
}

int Holder::TimeoutMs() const {
  if (nbd_.state() == NbdClient::State::kClosed) {
    return static_cast<int>(std::clamp<int64_t>(retry_at_ms_ - now_ms_, 0, TickMs()));
  }
  const bool idle = nbd_.state() == NbdClient::State::kReady && waiting_count() == 0;
  return idle && !on_probation_ ? -1 : static_cast<int>(TickMs());
}

int64_t Holder::TickMs() const { return std::min(kTickMs, absence_ms_ / 4); }

// Takes as many requests as there are and as there are records for; their reads go to the server in
// one message.
bool Holder::TakeRequests() {
  while (free_count_ > 0) {
    FuseChannel::Read read;
    const FuseChannel::Next next = fuse_.TakeNext(read);
    if (next == FuseChannel::Next::kGone) return false;
    if (next == FuseChannel::Next::kNothing) return true;
    const uint32_t slot = free_[--free_count_];
    requests_[slot] = {read.unique, read.offset, read.length, now_ms_};
    if (nbd_.state() == NbdClient::State::kReady) Ask(slot);
    else if (absent()) Refuse(slot);
    // A lone request most likely is the only one: a second, vain read would cost a system call before
    // the request is even sent.
    if (waiting_count() == 1) return true;
  }
  return true;
}

void Holder::Ask(uint32_t slot) {
  const Request& request = requests_[slot];
  if (nbd_.QueueRead(slot, request.offset, request.length)) return;
  Problem why;
  why.Say("Cannot go on with the server: it answered what was not asked");
  Lose(why);
}

void Holder::Refuse(uint32_t slot) {
  if (!fuse_.AnswerError(requests_[slot].unique, EIO)) gone_ = true;
  requests_[slot].unique = 0;
  free_[free_count_++] = slot;
}

uint32_t Holder::LengthOf(uint64_t cookie) {
  return cookie < kRequestsMax && requests_[cookie].unique != 0 ? requests_[cookie].length : 0;
}

void Holder::Answer(uint64_t cookie, uint32_t error, const uint8_t* data) {
  const uint32_t slot = static_cast<uint32_t>(cookie);
  doubt_ms_ = 0;
  grace_ms_ = 0;
  if (error != 0) return Refuse(slot);
  if (!fuse_.AnswerRead(requests_[slot].unique, data, requests_[slot].length)) gone_ = true;
  requests_[slot].unique = 0;
  free_[free_count_++] = slot;
}

void Holder::OnServer(short happened) {
  // Bytes that the server sent before it hung up are read first; recv() reports the end.
  if ((happened & (POLLIN | POLLHUP | POLLERR)) == 0) return;
  const bool was_ready = nbd_.state() == NbdClient::State::kReady;
  Problem why;
  if (!nbd_.Receive(*this, why)) return Lose(why);
  if (!was_ready && nbd_.state() == NbdClient::State::kReady) OnReady();
}

void Holder::OnReady() {
  if (nbd_.size_bytes() != size_bytes_) {
    Problem why;
    why.Say("Cannot use export \"%s\": it has %" PRIu64 " bytes now, not %" PRIu64, export_name_,
            nbd_.size_bytes(), size_bytes_);
    return Lose(why);
  }
  Log("The server is back: %" PRIu32 " reads waited", waiting_count());
  why_ = {};
  retry_ms_ = 0;
  if (waiting_count() == 0) doubt_ms_ = grace_ms_ = 0;
  else if (grace_ms_ == 0) grace_ms_ = now_ms_;
  for (uint32_t slot = 0; slot < kRequestsMax; slot++) {
    if (requests_[slot].unique != 0) Ask(slot);
  }
}

void Holder::Lose(const Problem& why) {
  nbd_.Close();
  if (doubt_ms_ == 0) doubt_ms_ = now_ms_;
  retry_ms_ = std::clamp(retry_ms_ * 3 / 2, kRetryMinMs, kRetryMaxMs);
  retry_at_ms_ = now_ms_ + retry_ms_;
  // Log each reason once, not with every retry.
  if (!on_probation_ && strcmp(why.text, why_.text) != 0) Log("%s; reads wait", why.text);
  why_ = why;
}

void Holder::Reconnect() {
  Problem why;
  if (!nbd_.Connect(socket_path_, export_name_, why)) return Lose(why);
  handshake_until_ms_ = now_ms_ + kHandshakeMs;
}

void Holder::KeepTime() {
  if (nbd_.state() == NbdClient::State::kHandshake && now_ms_ > handshake_until_ms_) {
    Problem why;
    why.Say("Cannot use the server: it does not finish the handshake");
    Lose(why);
  }
  if (nbd_.state() == NbdClient::State::kClosed && now_ms_ >= retry_at_ms_) Reconnect();
  const bool ready = nbd_.state() == NbdClient::State::kReady;
  uint32_t overdue = 0;
  for (uint32_t slot = 0; slot < kRequestsMax && waiting_count() > 0; slot++) {
    const Request& request = requests_[slot];
    if (request.unique == 0) continue;
    const bool late = now_ms_ - std::max(request.arrived_ms, grace_ms_) > absence_ms_;
    if (ready ? !late : !absent()) continue;
    overdue++;
    Refuse(slot);
  }
  if (overdue == 0) return;
  Log("%" PRIu32 " reads are answered with EIO: no server for %" PRId64 " s", overdue,
      absence_ms_ / 1000);
  if (!ready) return;
  Problem why;
  why.Say("Cannot go on with the server: it leaves reads unanswered");
  Lose(why);
}

}  // namespace fusefile
