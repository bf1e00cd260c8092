// cli/serve/timeline.h: divides the time of a start into parts whose sum is the whole. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/types.h"

namespace fathom::client {

// A phase that a process reported at its end.
struct PhaseMark {
  std::string name;
  int64_t us = 0;    // Its duration, measured by the process.
  TimeUs at_us = 0;  // When the report was received.
};

// The time [from_us, to_us) of the starter's clock has this name.
struct Interval {
  std::string name;
  TimeUs from_us = 0;
  TimeUs to_us = 0;
};

// The intervals of one process: from its start to the end of its first phase, then from the end of
// each phase to the end of the next one (the time between two phases belongs to the second).
std::vector<Interval> ProcessIntervals(const std::string& process, TimeUs started_at_us,
                                       const std::vector<PhaseMark>& phases);

struct Part {
  std::string name;
  int64_t us = 0;
};

// Divides [begin_us, end_us) by the intervals, in their order. An interval gets the part of its
// time that earlier ones did not take; the remaining time becomes the last part, "other". The sum
// of the parts is end_us - begin_us. Neighbouring parts with the same name are joined. REQUIRES:
// begin_us <= end_us.
std::vector<Part> CutTimeline(TimeUs begin_us, TimeUs end_us,
                              const std::vector<Interval>& intervals);

// What a process whose start takes long has done: "worker-1 for 12.3 s, 8.1 s since headers".
std::string SlowText(const std::string& process, TimeUs started_at_us,
                     const std::vector<PhaseMark>& phases, TimeUs now_us);

// A table for people, in milliseconds.
std::string TimelineText(const std::vector<Part>& parts);

}  // namespace fathom::client
