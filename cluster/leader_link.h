// cluster/leader_link.h: one scheduler address as a router or a worker sees it: when to dial it,
// whether it answered, whether it leads, and when its silence ends the stream. Routers and workers
// keep one for each address (cluster/terms.h has which of several leaders is obeyed). Pure: time is
// an argument; no IO. Not thread-safe; the owner of the stream guards it.
#pragma once

#include <cstdint>

#include "cluster/messages.h"
#include "common/status.h"
#include "common/types.h"

namespace fathom {

struct LeaderLinkOptions {
  int64_t silence_us = kSilenceUs;     // A peer that beats and says nothing for so long is dead.
  int64_t hello_us = kFirstMessageUs;  // A stream is answered within this.
  int64_t redial_us_min = kRedialUsMin;
  int64_t redial_us_max = kRedialUsMax;
};

class LeaderLink {
 public:
  // `seed` makes the jitter of one process and address differ from another's.
  explicit LeaderLink(const LeaderLinkOptions& options = {}, uint64_t seed = 0)
      : options_(options), jitter_(seed) {}

  // ---- The stream's life. Each Dialled is followed by one Ended.

  void Dialled(TimeUs now);
  // The stream ended, or there never was one. The wait before the next one begins: it doubles from
  // the shortest to the longest until a Hello comes, less up to a quarter of jitter.
  void Ended(TimeUs now);
  bool open() const { return open_; }
  // Meaningful while not open: when to dial.
  TimeUs next_dial_us() const { return next_dial_us_; }
  // Whether no Hello came since the last stream but one ended: a repeated failure.
  bool failing() const { return redial_us_ != 0; }

  // ---- What the peer says.

  // Any message. `beat`: one that comes regularly (a heartbeat, Stats), so that from now on silence
  // means something.
  void Heard(bool beat, TimeUs now);
  // Its Hello. `leads`: it leads, and its term is obeyed.
  void HeardHello(bool leads, TimeUs now);
  // It resigned, or told a term that is stale.
  void StepDown() { leads_ = false; }
  bool greeted() const { return greeted_; }
  bool leads() const { return leads_; }

  // ---- Time.

  // Whether its silence ends the stream.
  bool Silent(TimeUs now) const;
  // Whether it leads and was heard within kLeaderDoubtUs; a heartbeat tells it.
  bool HearsLeader(TimeUs now) const { return leads_ && now - heard_us_ < kLeaderDoubtUs; }
  // This process itself did not run for `late_us`: no peer is blamed for that time.
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

// OK when `hello` is a scheduler's and speaks a protocol that this build speaks too.
absl::Status CheckSchedulerHello(const Hello& hello);

}  // namespace fathom
