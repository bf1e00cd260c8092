#include "router/trace/otlp_json.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace fathom::router {
namespace {

using Json = nlohmann::ordered_json;

// Enumerators of opentelemetry.proto.trace.v1.
constexpr int kSpanInternal = 1;
constexpr int kSpanServer = 2;
constexpr int kStatusError = 2;

// 64-bit integers are texts in the JSON of protobuf.
Json Text(const std::string& value) { return {{"stringValue", value}}; }
Json Number(int64_t value) { return {{"intValue", std::to_string(value)}}; }
Json Seconds(int64_t us) { return {{"doubleValue", static_cast<double>(us) / 1e6}}; }
Json Truth(bool value) { return {{"boolValue", value}}; }

void Add(const char* key, Json value, Json* attributes) {
  attributes->push_back({{"key", key}, {"value", std::move(value)}});
}

bool Succeeded(const RequestReport& report) {
  for (const char* outcome :
       {"END_TOKEN", "STOP_TOKEN", "STOP_STRING", "LENGTH", "SUSPENDED", "CANCELLED"}) {
    if (report.outcome == outcome) return true;
  }
  return false;
}

// The finish reason, as the conventions spell it.
const char* FinishOf(const RequestReport& report) {
  if (report.outcome == "LENGTH") return "length";
  if (!Succeeded(report)) return "error";
  const bool left = report.outcome == "SUSPENDED" || report.outcome == "CANCELLED";
  return left ? "cancelled" : "stop";
}

Json SpanOf(const TracedRequest& request, const char* name, int kind, const std::string& id,
            const std::string& parent, int64_t at_us, int64_t us) {
  const int64_t begin_ns = request.begin_unix_ns + at_us * 1000;
  Json span = {{"traceId", request.report.trace.context.trace_id},
               {"spanId", id},
               {"name", name},
               {"kind", kind},
               {"startTimeUnixNano", std::to_string(begin_ns)},
               {"endTimeUnixNano", std::to_string(begin_ns + us * 1000)}};
  if (!parent.empty()) span["parentSpanId"] = parent;
  return span;
}

Json RootAttributes(const RequestReport& report) {
  Json all = Json::array();
  Add("gen_ai.operation.name", Text(report.chat ? "chat" : "text_completion"), &all);
  Add("gen_ai.provider.name", Text("fathom"), &all);
  Add("gen_ai.request.model", Text(report.model), &all);
  Add("gen_ai.response.model", Text(report.model), &all);
  Add("gen_ai.response.id", Text(report.key.request_id), &all);
  Add("gen_ai.request.stream", Truth(true), &all);
  Add("gen_ai.request.max_tokens", Number(report.max_tokens), &all);
  Add("gen_ai.usage.input_tokens", Number(report.usage.prompt_tokens), &all);
  Add("gen_ai.usage.output_tokens", Number(report.usage.completion_tokens), &all);
  Add("gen_ai.usage.cache_read.input_tokens", Number(report.usage.cached_tokens), &all);
  Json reasons = Json::array();
  reasons.push_back(Text(FinishOf(report)));
  Add("gen_ai.response.finish_reasons", {{"arrayValue", {{"values", reasons}}}}, &all);
  if (report.first_token_us >= 0) {
    Add("gen_ai.response.time_to_first_chunk", Seconds(report.first_token_us), &all);
  }
  Add("fathom.outcome", Text(report.outcome), &all);
  Add("fathom.submits", Number(report.submits), &all);
  if (report.timings) {
    Add("fathom.suspensions", Number(report.timings->suspensions), &all);
    Add("fathom.preemptions", Number(report.timings->preemptions), &all);
  }
  if (!Succeeded(report)) {
    Add("error.type", Text(report.reason.empty() ? report.outcome : report.reason), &all);
  }
  return all;
}

void AddBehind(const WaitTimes& behind_us, Json* attributes) {
  for (size_t i = 0; i < kWaitLimits; ++i) {
    if (behind_us[i] == 0) continue;
    const std::string key =
        std::string("fathom.behind.") + WaitLimitName(static_cast<WaitLimit>(i)) + "_seconds";
    Add(key.c_str(), Seconds(behind_us[i]), attributes);
  }
}

Json PartAttributes(const RequestReport& report, const PartSpan& part) {
  Json all = Json::array();
  const std::string_view name = part.name;
  if (name == "queue") AddBehind(report.timings->queue_behind_us, &all);
  if (name == "suspended") AddBehind(report.timings->suspended_behind_us, &all);
  if (part.stay != nullptr) {
    Add("fathom.group", Number(part.stay->group.value), &all);
    Add("fathom.epoch", Number(static_cast<int64_t>(part.stay->epoch.value)), &all);
    Add("fathom.stay_end", Text(StayEndName(part.stay->end)), &all);
  }
  return all;
}

void AddSpans(const TracedRequest& request, const std::function<std::string()>& new_span_id,
              Json* spans) {
  const RequestReport& report = request.report;
  const SpanContext& trace = report.trace;
  Json root = SpanOf(request, "llm_request", kSpanServer, trace.context.span_id, trace.parent_id, 0,
                     report.whole_us);
  root["attributes"] = RootAttributes(report);
  if (!Succeeded(report)) root["status"] = {{"code", kStatusError}, {"message", report.message}};
  spans->push_back(std::move(root));
  for (const PartSpan& part : PartsOf(report)) {
    Json span = SpanOf(request, part.name, kSpanInternal, new_span_id(), trace.context.span_id,
                       part.at_us, part.us);
    span["attributes"] = PartAttributes(report, part);
    spans->push_back(std::move(span));
  }
}

}  // namespace

std::vector<PartSpan> PartsOf(const RequestReport& report) {
  std::vector<PartSpan> parts;
  int64_t at_us = 0;
  const auto add = [&](const char* name, int64_t us, const Stay* stay = nullptr) {
    if (us > 0) parts.push_back({name, at_us, us, stay});
    at_us += us;
  };
  add("transport", report.TransportUs());
  if (!report.timings) return parts;
  const RequestTimings& timings = *report.timings;
  add("earlier", timings.earlier_us);
  const int64_t submit_us = at_us;
  const char* wait = timings.queue_us > 0 ? "queue" : "suspended";
  const char* fill = timings.prefill_us > 0 ? "prefill" : "replay";
  for (const Stay& stay : timings.stays) {
    add(wait, submit_us + stay.at_us - at_us);
    add(fill, stay.prefill_us, &stay);
    add("decode", stay.us - stay.prefill_us, &stay);
    wait = "suspended";
    fill = "replay";
  }
  add(wait, report.whole_us - at_us);
  return parts;
}

std::string OtlpTraces(std::span<const TracedRequest> requests, const TraceResource& resource,
                       const std::function<std::string()>& new_span_id) {
  Json spans = Json::array();
  for (const TracedRequest& request : requests) AddSpans(request, new_span_id, &spans);
  Json attributes = Json::array();
  Add("service.name", Text("fathom-router"), &attributes);
  Add("service.version", Text(resource.version), &attributes);
  Add("service.instance.id", Text(resource.instance_id), &attributes);
  const Json scope = {{"scope", {{"name", "fathom"}, {"version", resource.version}}},
                      {"spans", std::move(spans)}};
  const Json all = {
      {"resourceSpans", Json::array({{{"resource", {{"attributes", std::move(attributes)}}},
                                      {"scopeSpans", Json::array({scope})}}})}};
  return all.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace fathom::router
