// scheduler/core/wait_queue.h: the sequences that wait for a seat, in the policy's order.
// A sequence with tokens waits in the line of their kind of group (device kind and tensor
// parallelism of a model), one without waits in the line of all, "". A line whose last group is
// gone gives up after the wait: its sequences go on in the line of their model, for any group that
// computes it. While groups are there but none of a model, its sequences wait as long, then Expire
// hands them out: an answer is of one model. Thread: not thread-safe; owned by the driver thread.
// Does not own sequences.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"
#include "common/types.h"
#include "scheduler/sessions/session.h"

namespace fathom::scheduler {

inline constexpr TimeUs kModelWaitUs = 30'000'000;

class WaitQueue {
 public:
  // Of a group, or of a sequence's tokens. Both empty: of none yet, any group will do.
  struct Kind {
    std::string fingerprint;
    std::string model;  // ModelOf (cluster/request.h): equal fingerprints have equal models.

    static Kind Of(const std::string& fingerprint, const ComputeKind& kind) {
      return {fingerprint, ModelOf(kind, fingerprint)};
    }
  };

  explicit WaitQueue(int64_t wait_us = kModelWaitUs) : wait_us_(wait_us) {}

  // Puts the sequence into the WaitingState. O(log size).
  void Push(Sequence& sequence, OrderKey order, const Kind& kind, bool first_time, TimeUs now);
  // Takes it out and leaves it suspended. REQUIRES: it waits.
  void Erase(Sequence& sequence);

  // The first that a group of `kind` may take and `accepts` agrees to; nullptr: none.
  Sequence* First(const Kind& kind, const std::function<bool(const Sequence&)>& accepts) const;

  void GroupUp(const Kind& kind, TimeUs now);
  void GroupDown(const Kind& kind, TimeUs now);
  // Lets the lines give up whose time is over. Returns those whose model was replaced by others for
  // too long; they still wait here, and the caller ends them.
  std::vector<Sequence*> Expire(TimeUs now);
  TimeUs NextTimeUs() const;  // INT64_MAX: none.

  int32_t size() const { return size_; }
  int32_t first_time_requests() const { return first_time_requests_; }
  int64_t first_time_tokens() const { return first_time_tokens_; }
  void ForEach(const std::function<void(Sequence&)>& visit) const;

  absl::Status Check() const;

 private:
  using Entries =
      std::set<std::pair<OrderKey, Sequence*>>;  // Keys differ: the pointer never decides.
  struct Line {
    Entries entries;
    std::string model;
    int32_t groups = 0;     // Live ones of this fingerprint.
    TimeUs give_up_us = 0;  // Of a fingerprint's line: without groups.
  };
  struct Model {
    int32_t groups = 0;   // Live ones.
    int32_t waiting = 0;  // Sequences.
    TimeUs end_us = 0;    // While other models have groups and this one has none.
  };

  void Count(const Sequence& sequence, bool first_time, int32_t sign);
  void Forget(const std::string& model);  // Unless somebody still has to do with it.
  void SetEnds(TimeUs now);

  const int64_t wait_us_;
  std::map<std::string, Line> lines_;    // By fingerprint, or LineOfModel.
  std::map<std::string, Model> models_;  // Of groups and of sequences with tokens.
  int32_t groups_ = 0;
  int32_t size_ = 0;
  int32_t first_time_requests_ = 0;
  int64_t first_time_tokens_ = 0;
};

}  // namespace fathom::scheduler
