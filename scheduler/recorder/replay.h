// scheduler/recorder/replay.h: gives the events of a recording to a new core, checks the core's
// invariants after each event, and counts what the core did. Pure. Thread: one.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "scheduler/core/scheduler_core.h"

namespace fathom::scheduler {

// A 64-bit hash of all actions of a core, in order. Equal actions give equal hashes.
class ActionsHash {
 public:
  void Add(const Actions& actions);
  uint64_t value() const { return value_; }

 private:
  void AddBytes(const std::string& bytes);
  uint64_t value_ = 0xcbf29ce484222325;  // FNV-1a.
};

struct ActionCounts {
  int64_t accepted = 0, refused = 0, frames = 0, plans = 0, aborts = 0, log = 0;
  void Add(const Actions& actions);
  // "accepted 1, refused 0, ..."
  std::string Text() const;
};

class Replay {
 public:
  explicit Replay(const CoreOptions& options) : core_(options) {}

  // INTERNAL: the first broken invariant. `actions`, if not null, gets what this event caused.
  // REQUIRES: no earlier Step returned an error; time_us is not lower than before.
  absl::Status Step(Event event, TimeUs time_us, ActionCounts* actions = nullptr);

  int64_t events() const { return events_; }
  const std::array<int64_t, std::variant_size_v<Event>>& by_kind() const { return by_kind_; }
  const ActionCounts& actions() const { return actions_; }
  uint64_t hash() const { return hash_.value(); }

 private:
  SchedulerCore core_;
  ActionsHash hash_;
  ActionCounts actions_;
  int64_t events_ = 0;
  std::array<int64_t, std::variant_size_v<Event>> by_kind_ = {};
};

}  // namespace fathom::scheduler
