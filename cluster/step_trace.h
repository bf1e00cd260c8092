// cluster/step_trace.h: when each part of a step happened in a worker, for `fathom profile`: the
// worker records it and the client draws it. All times are by the worker's own clock, so they can
// be compared with each other but not with another process' times.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace fathom {

// The most steps of one trace.
inline constexpr int32_t kTraceStepsMax = 10'000;

// In the order of time: wait, read, submit, (the device works), collected, ready, written. Steps
// overlap: one may be submitted while the previous one is still computed.
struct StepTrace {
  TermId term;
  EpochId epoch;
  StepId step;
  int32_t chunks = 0;  // Sequences in the step: prefill chunks and decode rows.
  int32_t prompt_chunks = 0;
  int32_t prompt_tokens = 0;  // In all prompt chunks.
  int32_t decode_rows = 0;
  bool graph = false;  // Replayed as a CUDA graph; false: launched op by op.
  TimeUs wait_from_us = 0;
  TimeUs read_at_us = 0;
  TimeUs submit_from_us = 0;  // Deltas are applied, inputs built, copies and launches queued.
  TimeUs submit_end_us = 0;
  TimeUs device_from_us = 0;  // device_end_us minus the duration by the device's events.
  TimeUs device_end_us = 0;   // When the host saw the end; the true end is not later.
  TimeUs ready_at_us = 0;     // The result is ready to be written.
  TimeUs written_at_us = 0;
  bool operator==(const StepTrace&) const = default;
};

}  // namespace fathom
