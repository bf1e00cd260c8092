// cli/serve/timeline.h: where the time of a start went, as parts that add up to the whole. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/types.h"

namespace fathom::client {

// A phase that a process told when it was over.
struct PhaseMark {
  std::string name;
  int64_t us = 0;    // How long it took, by the process.
  TimeUs at_us = 0;  // When its end was heard.
};

// [from_us, to_us) of the starter's clock has this name.
struct Interval {
  std::string name;
  TimeUs from_us = 0;
  TimeUs to_us = 0;
};

// The intervals of one process: its start until its first phase, then from the end of one phase to
// the end of the next (what lies between two phases is the way to the second).
std::vector<Interval> ProcessIntervals(const std::string& process, TimeUs started_at_us,
                                       const std::vector<PhaseMark>& phases);

struct Part {
  std::string name;
  int64_t us = 0;
};

// Cuts [begin_us, end_us) by the intervals, in their order: an interval takes what is not yet taken
// of it, and what lies between them is the last part, "other". The parts add up to end_us -
// begin_us. Neighbours of one name are one part. REQUIRES: begin_us <= end_us.
std::vector<Part> CutTimeline(TimeUs begin_us, TimeUs end_us,
                              const std::vector<Interval>& intervals);

// A table for people, times in milliseconds.
std::string TimelineText(const std::vector<Part>& parts);

}  // namespace fathom::client
