// cluster/leader_link.h: the state of one scheduler address in a router or a worker: when to dial
// it, whether it answered, whether it leads, and when its silence ends the stream. Routers and
// workers keep one LeaderLink for each address (cluster/terms.h decides which of several leaders is
// obeyed). Pure: time is an argument; no IO. Not thread-safe; the owner of the stream guards it.
#pragma once

#include <cstdint>

#include "cluster/messages.h"
#include "common/status.h"
#include "common/types.h"

namespace fathom {

struct LeaderLinkOptions {
  int64_t silence_us = kSilenceUs;     // A peer that sends heartbeats is dead after this silence.
  int64_t hello_us = kFirstMessageUs;  // The first message must come within this time.
  int64_t redial_us_min = kRedialUsMin;
  int64_t redial_us_max = kRedialUsMax;
};

class LeaderLink {
 public:
  // `seed` gives each process and address its own jitter.
  explicit LeaderLink(const LeaderLinkOptions& options = {}, uint64_t seed = 0)
      : options_(options), jitter_(seed) {}

  // ---- The life of the stream. Each Dialled is followed by one Ended.

  void Dialled(TimeUs now);
  // The stream ended, or could not be opened. The wait before the next one begins. It doubles from
  // the shortest to the longest value until a Hello comes; up to a quarter of it is subtracted as
  // jitter.
  void Ended(TimeUs now);
  bool open() const { return open_; }
  // When to dial. REQUIRES: not open.
  TimeUs next_dial_us() const { return next_dial_us_; }
  // Whether a stream has ended since the last Hello. Asked before Ended, it says that this end is a
  // repeated failure, which is not logged again.
  bool failing() const { return redial_us_ != 0; }

  // ---- Messages of the peer.

  // A message of any kind came. `beat`: the peer sends this kind regularly (a heartbeat, Stats), so
  // from now on its silence is measured.
  void Heard(bool beat, TimeUs now);
  // The peer's Hello came. `leads`: it leads, and its term is obeyed.
  void HeardHello(bool leads, TimeUs now);
  // The peer resigned or sent a stale term.
  void StepDown() { leads_ = false; }
  bool greeted() const { return greeted_; }
  bool leads() const { return leads_; }

  // ---- Time.

  // Whether the peer's silence ends the stream.
  bool Silent(TimeUs now) const;
  // Whether the peer leads and was heard within kLeaderDoubtUs. A worker's heartbeat reports it.
  bool HearsLeader(TimeUs now) const { return leads_ && now - heard_us_ < kLeaderDoubtUs; }
  // This process itself did not run for `late_us`, so this time does not count as a peer's silence.
  void Excuse(int64_t late_us) { heard_us_ += late_us; }

 private:
  LeaderLinkOptions options_;
  uint64_t jitter_;
  bool open_ = false;
  TimeUs next_dial_us_ = 0;
  int64_t redial_us_ = 0;
  TimeUs heard_us_ = 0;
  bool greeted_ = false;
  bool beats_ = false;
  bool leads_ = false;
};

// OK if `hello` comes from a scheduler with a protocol version that this build speaks.
absl::Status CheckSchedulerHello(const Hello& hello);

}  // namespace fathom
