// tests/sim/timed/timed_report.h: the figures of a TimedWorld. Goodput: the requests a second that
// get their first token in time and whose mean time for each later token is short enough; a refused
// request, and one that is not over at the end of the run, is not good.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tests/sim/timed/timed_world.h"

namespace fathom::sim {

struct Objective {
  double ttft_ms = 500;
  double tpot_ms = 40;
};

// Of the requests that are due in [begin, end).
struct TimedSummary {
  std::string tenant;  // "": all.
  int64_t requests = 0, answered = 0, refused = 0;
  double offered_per_s = 0, goodput_per_s = 0, good_share = 0;
  double output_per_s = 0;  // Tokens of answers that ended in the window.
  double ended_per_s = 0;   // Answers that ended in the window.
  double ttft_ms[3] = {};   // p50, p95, p99, from the time at which a request was due.
  double tpot_ms[3] = {};
  double cached_share = 0;  // Of the prompt tokens of answered requests.
};

TimedSummary Summarize(const std::vector<Call>& calls, const std::string& tenant, TimeUs begin_us,
                       TimeUs end_us, const Objective& objective);

nlohmann::ordered_json ToJson(const TimedSummary& summary);
// The heads of the columns of ToRow.
std::string RowHeads();
std::string ToRow(const TimedSummary& summary);

}  // namespace fathom::sim
