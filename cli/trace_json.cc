#include "cli/trace_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace fathom::client {
namespace {

using Json = nlohmann::ordered_json;

enum Row : int { kEngine = 1, kDevice = 2, kResult = 3 };
constexpr std::pair<Row, const char*> kRows[] = {
    {kEngine, "engine"}, {kDevice, "device"}, {kResult, "result"}};

struct Span {
  TimeUs from_us = 0;
  TimeUs to_us = 0;
  int64_t us() const { return to_us - from_us; }
};

// When the device computed each step: moved earlier if it would overlap the next step.
std::vector<Span> DeviceSpans(const std::vector<StepTrace>& steps) {
  std::vector<Span> spans(steps.size());
  for (size_t i = steps.size(); i-- > 0;) {
    const int64_t us = std::max<int64_t>(steps[i].device_end_us - steps[i].device_from_us, 0);
    TimeUs end_us = steps[i].device_end_us;
    if (i + 1 < steps.size()) end_us = std::min(end_us, spans[i + 1].from_us);
    spans[i] = {end_us - us, end_us};
  }
  return spans;
}

TimeUs OriginOf(const std::vector<StepTrace>& steps, const std::vector<Span>& device) {
  TimeUs origin_us = steps.empty() ? 0 : steps[0].wait_from_us;
  for (const Span& span : device) origin_us = std::min(origin_us, span.from_us);
  return origin_us;
}

std::string NameOf(const StepTrace& step) {
  if (step.chunks == 0) return "no rows";
  std::string name;
  if (step.prompt_chunks > 0) name = fmt::format("prefill {}", step.prompt_tokens);
  if (step.decode_rows > 0) {
    name += fmt::format("{}decode {}", name.empty() ? "" : " + ", step.decode_rows);
  }
  return name;
}

Json ArgsOf(const StepTrace& step) {
  return {{"term", step.term.value},
          {"epoch", step.epoch.value},
          {"step", step.step.value},
          {"chunks", step.chunks},
          {"prompt_chunks", step.prompt_chunks},
          {"prompt_tokens", step.prompt_tokens},
          {"decode_rows", step.decode_rows},
          {"launch", step.graph ? "graph" : "eager"}};
}

Json Metadata(const char* what, int row, const std::string& name) {
  return {{"ph", "M"}, {"name", what}, {"pid", 1}, {"tid", row}, {"args", {{"name", name}}}};
}

// The slices of one row. A slice is cut to begin at or after the end of the previous one.
class Slices {
 public:
  Slices(Row row, TimeUs origin_us) : row_(row), origin_us_(origin_us), end_us_(origin_us) {}

  void Add(std::string name, Span span, Json args) {
    const TimeUs from_us = std::max(span.from_us, end_us_);
    end_us_ = std::max(span.to_us, from_us);
    slices_.push_back({{"ph", "X"},
                       {"name", std::move(name)},
                       {"pid", 1},
                       {"tid", int{row_}},
                       {"ts", from_us - origin_us_},
                       {"dur", end_us_ - from_us},
                       {"args", std::move(args)}});
  }
  void AddIfAny(const char* name, Span span, const StepTrace& step) {
    if (span.us() > 0) Add(name, span, {{"step", step.step.value}});
  }
  void MoveTo(std::vector<Json>* all) {
    all->insert(all->end(), std::make_move_iterator(slices_.begin()),
                std::make_move_iterator(slices_.end()));
  }

 private:
  const Row row_;
  const TimeUs origin_us_;
  TimeUs end_us_;
  std::vector<Json> slices_;
};

int64_t Median(std::vector<int64_t> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

Json TraceJson(const std::vector<StepTrace>& steps, const std::string& worker) {
  const std::vector<Span> device = DeviceSpans(steps);
  const TimeUs origin_us = OriginOf(steps, device);
  Slices engine(kEngine, origin_us), computing(kDevice, origin_us), result(kResult, origin_us);
  for (size_t i = 0; i < steps.size(); ++i) {
    const StepTrace& step = steps[i];
    engine.AddIfAny("read", {step.wait_from_us, step.read_at_us}, step);
    engine.AddIfAny("wait for room", {step.read_at_us, step.submit_from_us}, step);
    engine.AddIfAny("submit", {step.submit_from_us, step.submit_end_us}, step);
    computing.Add(NameOf(step), device[i], ArgsOf(step));
    result.AddIfAny("collect", {step.device_end_us, step.ready_at_us}, step);
    result.AddIfAny("write", {step.ready_at_us, step.written_at_us}, step);
  }
  std::vector<Json> slices;
  for (Slices* row : {&engine, &computing, &result}) row->MoveTo(&slices);
  std::stable_sort(slices.begin(), slices.end(), [](const Json& a, const Json& b) {
    return a["ts"].get<int64_t>() < b["ts"].get<int64_t>();
  });
  Json events = Json::array();
  events.push_back(Metadata("process_name", 0, worker));
  for (const auto& [row, name] : kRows) {
    events.push_back(Metadata("thread_name", row, name));
    Json order = Metadata("thread_sort_index", row, name);
    order["args"] = {{"sort_index", int{row}}};
    events.push_back(std::move(order));
  }
  for (Json& slice : slices) events.push_back(std::move(slice));
  return {{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}};
}

std::string TraceText(const std::vector<StepTrace>& steps) {
  if (steps.empty()) return "no steps";
  const std::vector<Span> device = DeviceSpans(steps);
  std::vector<int64_t> computing, submitting, writing;
  int64_t busy_us = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    busy_us += device[i].us();
    computing.push_back(device[i].us());
    submitting.push_back(steps[i].submit_end_us - steps[i].submit_from_us);
    writing.push_back(steps[i].written_at_us - steps[i].ready_at_us);
  }
  const int64_t all_us = std::max<int64_t>(device.back().to_us - device.front().from_us, 1);
  return fmt::format(
      "{} steps in {:.1f} ms, computing {:.1f} % of it; medians: device {} us, submit {} us, "
      "write {} us",
      steps.size(), static_cast<double>(all_us) / 1e3,
      100.0 * static_cast<double>(busy_us) / static_cast<double>(all_us),
      Median(std::move(computing)), Median(std::move(submitting)), Median(std::move(writing)));
}

}  // namespace fathom::client
