// scheduler/core/wait_queue.h: the sequences that wait for a seat, in the policy's order.
// A sequence with tokens of one fingerprint waits in that fingerprint's lane, for a group of the
// same kind; the lane "" is for any group. A lane whose last group is gone gives up after
// kFingerprintWaitUs: its sequences move to the lane "" and go on with what there is. Thread: not
// thread-safe; owned by the driver thread. Does not own sequences.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/session.h"

namespace fathom::scheduler {

inline constexpr TimeUs kFingerprintWaitUs = 30'000'000;

class WaitQueue {
 public:
  // Puts the sequence into the WaitingState. `fingerprint`: empty for any. O(log size).
  void Push(Sequence& sequence, OrderKey order, const std::string& fingerprint, bool first_time,
            TimeUs now);
  // Takes it out and leaves it suspended. REQUIRES: it waits.
  void Erase(Sequence& sequence);

  // The first that a group of `fingerprint` may take and `accepts` agrees to; nullptr: none.
  Sequence* First(const std::string& fingerprint,
                  const std::function<bool(const Sequence&)>& accepts) const;

  void GroupUp(const std::string& fingerprint);
  void GroupDown(const std::string& fingerprint, TimeUs now);
  // Lets the lanes give up whose time is over.
  void Expire(TimeUs now);
  TimeUs NextTimeUs() const;  // INT64_MAX: none.

  int32_t size() const { return size_; }
  int32_t first_time_requests() const { return first_time_requests_; }
  int64_t first_time_tokens() const { return first_time_tokens_; }
  void ForEach(const std::function<void(Sequence&)>& visit) const;

  absl::Status Check() const;

 private:
  using Entries =
      std::set<std::pair<OrderKey, Sequence*>>;  // Keys differ: the pointer never decides.
  struct Lane {
    Entries entries;
    int32_t groups = 0;     // Live ones of this fingerprint.
    TimeUs give_up_us = 0;  // Without groups and with entries.
  };

  void Count(const Sequence& sequence, bool first_time, int32_t sign);

  std::map<std::string, Lane> lanes_;
  int32_t size_ = 0;
  int32_t first_time_requests_ = 0;
  int64_t first_time_tokens_ = 0;
};

}  // namespace fathom::scheduler
