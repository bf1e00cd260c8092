// scheduler/core/wait_queue.h: the sequences that wait for a slot, in the policy's order.
// The queue has several lines. A sequence that has tokens waits in the line of the kind of group
// (model, device kind, tensor-parallel size) that computed the last of them. A sequence without
// tokens waits in the line "", which every group serves. A line gives up when it has had no group
// for `wait_us`: its sequences move to the line of their model, which every group of that model
// serves. When a model has had no group for `wait_us` while other models have groups, Expire
// returns the model's sequences, because one answer must never be made by two models. A line also
// has a clock for each WaitLimit, which runs while that limit keeps the line's first sequence
// waiting; a sequence waited for as long as the clocks advanced, which costs nothing for each
// sequence and step.
// A tenant may be held (Hold): none of its sequences is taken, whatever their place, and all of
// them wait for WaitLimit::kTenantRunning. Neither holding nor looking for the first sequence
// visits the sequences of a held tenant.
// Thread: not thread-safe; owned by the driver thread. The queue does not own the sequences.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "cluster/request_timings.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/sessions/session.h"

namespace fathom::scheduler {

class WaitQueue {
 public:
  // Of a group, or of a sequence's last tokens. Both empty: it has none, any group may take it.
  struct Kind {
    std::string fingerprint;
    std::string model;       // ModelOf (cluster/request.h): equal fingerprints have equal models.
    std::string model_line;  // The name of the model's line.

    Kind() = default;
    Kind(std::string of_fingerprint, std::string of_model);
    static Kind Of(const std::string& fingerprint, const ComputeKind& kind) {
      return {fingerprint, ModelOf(kind, fingerprint)};
    }
  };

  explicit WaitQueue(int64_t wait_us) : wait_us_(wait_us) {}

  // Puts the sequence into the WaitingState. O(log size).
  void Push(Sequence& sequence, OrderKey order, const Kind& kind, bool first_time, TimeUs now);
  // The sequence at `from` gets the place `to`. REQUIRES: it waits. O(log size).
  void Reorder(const OrderKey& from, const OrderKey& to);
  // Takes the sequence out and leaves it suspended; its stamps get what it waited for. REQUIRES: it
  // waits.
  void Erase(Sequence& sequence, TimeUs now);

  // The sequences of a held tenant are not taken.
  void Hold(const std::string& tenant, bool held, TimeUs now);

  enum class Verdict {
    kTake,
    kPass,        // Look at the next one.
    kPassTenant,  // Look at the next one of another tenant (of the same line).
    kStop,        // Take none.
  };
  // The first sequence that a group of `kind` may take and that `judge` says to take; nullptr:
  // none. `judge` is asked in the queue's order.
  Sequence* First(const Kind& kind, const std::function<Verdict(Sequence&)>& judge) const;

  // What keeps each live group from its next sequence, from `now` on.
  struct GroupLimit {
    const Kind* kind;
    WaitLimit limit;
  };
  void NoteLimits(const std::vector<GroupLimit>& groups, TimeUs now);
  // What the sequence has waited for since it was pushed. REQUIRES: it waits.
  WaitTimes WaitedUs(const Sequence& sequence, TimeUs now) const;
  std::array<int32_t, kWaitLimits> CountByLimit() const;

  void GroupUp(const Kind& kind, TimeUs now);
  void GroupDown(const Kind& kind, TimeUs now);
  // Lets each line give up that has had no group for `wait_us`. Returns the sequences whose model
  // has had none for that long while other models have groups. They are still in the queue; the
  // caller ends them.
  std::vector<Sequence*> Expire(TimeUs now);
  TimeUs NextTimeUs() const;  // INT64_MAX: none.

  int32_t size() const { return size_; }
  int32_t held_size() const { return held_size_; }  // Of held tenants.
  int32_t first_time_requests() const { return first_time_requests_; }
  int64_t first_time_tokens() const { return first_time_tokens_; }
  void ForEach(const std::function<void(Sequence&)>& visit) const;

  absl::Status Check() const;

 private:
  using Entries =
      std::set<std::pair<OrderKey, Sequence*>>;  // Keys differ, so no order depends on a pointer.
  // The sequences of one tenant in a line.
  struct TenantEntries {
    Entries entries;
    bool held = false;
    // Added to the line's clock gives the tenant's, which differs by the times in which it is held.
    WaitTimes offset_us = {};
    WaitTimes held_clock_us = {};  // The line's clock when the tenant was held.
    TimeUs held_us = 0;
  };
  using Tenants = std::map<std::string, TenantEntries>;
  using Heads = std::set<std::pair<OrderKey, const TenantEntries*>>;
  struct Line {
    Tenants tenants;          // Each has entries.
    Heads heads;              // The first entry of each tenant that is not held.
    WaitTimes clock_us = {};  // Until `noted_us`.
    WaitLimit limit = WaitLimit::kOther;
    TimeUs noted_us = 0;
    std::string model;
    int32_t groups = 0;     // Live ones of this fingerprint.
    TimeUs give_up_us = 0;  // Of a fingerprint's line without groups.
  };
  struct Model {
    int32_t groups = 0;   // Live ones.
    int32_t waiting = 0;  // Sequences.
    TimeUs end_us = 0;    // Set while only other models have groups.
  };
  // Visits the sequences of a line in order, without those of held tenants.
  class Cursor {
   public:
    explicit Cursor(const Heads* heads) : heads_(heads), next_head_(heads->begin()) {}
    // nullptr: no more.
    const Entries::value_type* Peek() const;
    void Advance();
    void AdvanceToOtherTenant();

   private:
    struct Open {
      Entries::const_iterator next, end;
    };
    const Heads* heads_;
    Heads::const_iterator next_head_;
    std::vector<Open> open_;  // The tenants whose head was visited.
  };

  static WaitTimes ClockOf(const Line& line, TimeUs now);
  static WaitTimes ClockOf(const Line& line, const TenantEntries& of, TimeUs now);
  static void SetHeld(Line& line, TenantEntries& of, bool held, TimeUs now);
  // Puts an entry into a line and takes it out, with the heads.
  TenantEntries& Insert(Line& line, const OrderKey& order, Sequence& sequence, TimeUs now);
  static void Remove(Line& line, const OrderKey& order, Sequence& sequence);
  absl::Status CheckLine(const std::string& name, const Line& line) const;
  void Count(Sequence& sequence, bool first_time, int32_t sign);
  void Forget(const std::string& model);  // If it has no group and no sequence.
  void SetEnds(TimeUs now);

  const int64_t wait_us_;
  std::map<std::string, Line> lines_;    // By fingerprint, or LineOfModel.
  std::map<std::string, Model> models_;  // Of groups and of sequences with tokens.
  absl::flat_hash_map<uint64_t, Sequence*> by_number_;
  absl::flat_hash_map<std::string, int32_t> waiting_of_;  // Sequences by tenant.
  std::set<std::string> held_;
  int32_t groups_ = 0;
  int32_t size_ = 0;
  int32_t held_size_ = 0;
  int32_t first_time_requests_ = 0;
  int64_t first_time_tokens_ = 0;
};

}  // namespace fathom::scheduler
