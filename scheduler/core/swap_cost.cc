#include "scheduler/core/swap_cost.h"

#include <algorithm>

#include "scheduler/core/group.h"

namespace fathom::scheduler {

void SwapCost::Rate::Add(double time_us, double count) {
  constexpr double kKeep = 0.9;
  us = us * kKeep + time_us;
  units = units * kKeep + count;
}

void SwapCost::Note(const FlightStep& step, const StepTimings& timings) {
  if (step.swapped_blocks > 0 && timings.swap_us >= 0) {
    copies_.Add(static_cast<double>(timings.swap_us), step.swapped_blocks);
  }
  if (timings.compute_us <= 0) return;
  int32_t prompt_rows = 0;
  bool decodes = false;
  for (const FlightRow& row : step.rows) {
    prompt_rows += row.prefill ? row.tokens : 0;
    decodes = decodes || !row.prefill;
  }
  const auto compute_us = static_cast<double>(timings.compute_us);
  if (prompt_rows == 0) return decodes_.Add(compute_us, 1);
  // The decode rows of the step would have taken the time of a step of their own.
  const double others_us = decodes ? decodes_.mean() : 0;
  prefill_.Add(std::max(compute_us - others_us, 0.0), prompt_rows);
}

bool SwapCost::SwapIsFaster(int32_t blocks, int32_t tokens) const {
  if (!copies_.known() || !prefill_.known()) return true;
  return 2 * copies_.mean() * blocks < prefill_.mean() * tokens;
}

}  // namespace fathom::scheduler
