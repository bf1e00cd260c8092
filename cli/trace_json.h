// cli/trace_json.h: the steps of workers as a trace in Chrome's format (for ui.perfetto.dev and
// chrome://tracing), and as lines of text; and the difference of two clocks. Pure.
//
// Each worker has three rows. All rows share one time axis, from the first step's wait on. "engine"
// waits for plans and submits them. "device" computes; it has one slice for each step, named by the
// step's rows. "result" turns the outputs into a result and writes it. The slices of a row are in
// order and do not overlap.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cluster/step_trace.h"

namespace fathom::client {

// One worker's steps, in the order of their results.
struct WorkerTrace {
  std::string name;  // As it is displayed.
  std::vector<StepTrace> steps;
  int64_t clock_ahead_us = 0;  // Of the worker's clock before the one of the axis.
};

// Asks a worker for its clock: sent and received by our clock, answered by the worker's.
struct ClockSample {
  TimeUs sent_us = 0;
  TimeUs answered_us = 0;
  TimeUs received_us = 0;
};

// The worker's clock is ahead of ours by `ahead_us`, give or take `error_us`.
struct ClockDifference {
  int64_t ahead_us = 0;
  int64_t error_us = 0;
};

// By the sample with the shortest round trip: the answer was made between sending and receiving. If
// 0 is within the error, the clocks are the same one, as those of one machine are, and the
// difference is exactly 0. REQUIRES: at least one sample.
ClockDifference BestDifference(const std::vector<ClockSample>& samples);

// A process of the trace for each worker, in this order. Durations on the device are kept as
// measured. The end of a step on the device is only known not to be later than the host saw it, so
// a slice that would overlap the next one is moved before it.
nlohmann::ordered_json TraceJson(std::vector<WorkerTrace> workers);

// For people: the number of steps and their time, the share of it that the device worked, medians.
std::string TraceText(const std::vector<StepTrace>& steps);

}  // namespace fathom::client
