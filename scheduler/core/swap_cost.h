// scheduler/core/swap_cost.h: what it costs one group to swap the KV of a preempted sequence out
// and in, and what it costs to compute it again, from the times that its steps report. Both costs
// are times of the answering rank in which the group computes nothing else. Pure; owned by the
// driver thread.
#pragma once

#include <cstdint>

#include "cluster/plan.h"

namespace fathom::scheduler {

struct FlightStep;

class SwapCost {
 public:
  // The result of a step came.
  void Note(const FlightStep& step, const StepTimings& timings);

  // Whether `blocks` blocks are swapped out and in in less time than `tokens` tokens are computed.
  // True until a swap was measured, since that is the only way to measure one. The time of a token
  // is a mean over the prefills of the group. It does not grow with the length of the sequence,
  // although attention does, so a sequence that is longer than others is swapped later than would
  // be best and never too early.
  bool SwapIsFaster(int32_t blocks, int32_t tokens) const;

  double us_per_block() const { return copies_.mean(); }   // One way; 0: not measured.
  double us_per_token() const { return prefill_.mean(); }  // 0: not measured.

 private:
  // A mean of time per unit in which the latest measurements weigh most.
  struct Rate {
    double us = 0;
    double units = 0;
    void Add(double time_us, double count);
    bool known() const { return units > 0; }
    double mean() const { return known() ? us / units : 0; }
  };

  Rate copies_;
  Rate decodes_;  // Steps without a prefill.
  Rate prefill_;
};

}  // namespace fathom::scheduler
