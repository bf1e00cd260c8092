// cli/trace_json.h: a worker's steps as a trace in Chrome's format (for ui.perfetto.dev and
// chrome://tracing), and as one line of text. Pure.
//
// Three rows share the worker's time axis, from the first step's wait on. "engine" waits for plans
// and submits them. "device" computes; it has one slice for each step, named by the step's rows.
// "result" turns the outputs into a result and writes it. The slices of a row are in order and do
// not overlap.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cluster/step_trace.h"

namespace fathom::client {

// `steps` are in the order of their results; `worker` is the displayed name. Durations on the
// device are kept as measured. The end of a step on the device is only known not to be later than
// the host saw it, so a slice that would overlap the next one is moved before it.
nlohmann::ordered_json TraceJson(const std::vector<StepTrace>& steps, const std::string& worker);

// For people: the number of steps and their time, the share of it that the device worked, medians.
std::string TraceText(const std::vector<StepTrace>& steps);

}  // namespace fathom::client
