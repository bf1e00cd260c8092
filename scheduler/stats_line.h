// scheduler/stats_line.h: the log's summary of what the cluster did since the last summary
// (--log-interval). Pure: time is an argument. Thread: not thread-safe.
#pragma once

#include <optional>
#include <string>

#include "common/types.h"
#include "scheduler/core/scheduler_core.h"

namespace fathom::scheduler {

class StatsLine {
 public:
  // `interval_us` 0: never.
  StatsLine(int64_t interval_us, TimeUs now) : interval_us_(interval_us), since_us_(now) {}

  TimeUs next_us() const { return interval_us_ == 0 ? INT64_MAX : since_us_ + interval_us_; }

  // The line if it is due. nullopt also if nothing was computed and nothing runs or waits: an idle
  // cluster writes no line.
  std::optional<std::string> Take(const CoreStats& stats, TimeUs now);

 private:
  const int64_t interval_us_;
  TimeUs since_us_;
  CoreStats last_;
};

}  // namespace fathom::scheduler
