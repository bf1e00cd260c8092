// router/trace/otlp_json.h: the spans of requests as a message of OTLP/HTTP in JSON
// (ExportTraceServiceRequest), with the names of OpenTelemetry's conventions for generative AI. A
// request is one span `llm_request` with a child for each part of its time; ids are hexadecimal, as
// OTLP's JSON asks. Pure: ids and times are arguments.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "router/sessions/request_report.h"

namespace fathom::router {

struct TracedRequest {
  RequestReport report;
  int64_t begin_unix_ns = 0;  // When the whole began.
};

struct TraceResource {
  std::string version;
  std::string instance_id;
};

// A part of a request's time, with its place in the whole.
struct PartSpan {
  const char* name = "";
  int64_t at_us = 0;  // From the begin of the whole.
  int64_t us = 0;
  const Stay* stay = nullptr;  // Of a part in a slot.
};

// The parts without a gap between them, in their order: transport first, because only its sum is
// known, then what the scheduler stamped. They end with the whole. A request with more stays than
// its timings list has one part `suspended` for all that is not listed.
std::vector<PartSpan> PartsOf(const RequestReport& report);

// `new_span_id` gives 16 hexadecimal digits, never the same.
std::string OtlpTraces(std::span<const TracedRequest> requests, const TraceResource& resource,
                       const std::function<std::string()>& new_span_id);

}  // namespace fathom::router
