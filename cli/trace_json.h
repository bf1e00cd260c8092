// cli/trace_json.h: a worker's steps as a trace of Chrome's format, which ui.perfetto.dev and
// chrome://tracing show, and in one line of text. Pure.
//
// Three rows share the worker's time axis, from the first step's wait on: "engine" waits for plans
// and submits them, "device" computes, a slice a step named by its rows, "result" turns what was
// computed into a result and writes it. Slices of a row are in order and never overlap.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cluster/step_trace.h"

namespace fathom::client {

// `steps` in the order of their results; `worker` is the name shown. Durations on the device are
// kept as they were measured. Its ends are only known not to be later than the host saw them, so
// a slice that would run into the next one is moved before it.
nlohmann::ordered_json TraceJson(const std::vector<StepTrace>& steps, const std::string& worker);

// For people: how many steps in what time, the share of it that the device worked, medians.
std::string TraceText(const std::vector<StepTrace>& steps);

}  // namespace fathom::client
