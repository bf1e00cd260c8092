// cluster/step_trace.h: when each part of a step happened in a worker, for `fathom profile`: what
// the worker records and the client draws. Instants are of that worker's own clock: they are
// compared with one another, never with another process'.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace fathom {

// Steps of one trace at most.
inline constexpr int32_t kTraceStepsMax = 10'000;

// In the order of time: wait, read, submit, (the device works), collected, ready, written. Several
// steps may be under way, so that one is submitted while the one before is still computed.
struct StepTrace {
  TermId term;
  EpochId epoch;
  StepId step;
  int32_t chunks = 0;  // Sequences that took part: prompt chunks and decode rows.
  int32_t prompt_chunks = 0;
  int32_t prompt_tokens = 0;  // In all prompt chunks.
  int32_t decode_rows = 0;
  bool graph = false;  // Replayed as a graph, not launched op by op.
  TimeUs wait_from_us = 0;
  TimeUs read_at_us = 0;
  TimeUs submit_from_us = 0;  // Deltas applied, inputs built, copies and launches queued.
  TimeUs submit_end_us = 0;
  TimeUs device_from_us = 0;  // device_end_us less the time by the device's own events.
  TimeUs device_end_us = 0;   // Seen by the host: the true end is not later.
  TimeUs ready_at_us = 0;     // The result can be written.
  TimeUs written_at_us = 0;
  bool operator==(const StepTrace&) const = default;
};

}  // namespace fathom
