#include "cli/trace_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
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

Json Metadata(const char* what, int process, int row, const std::string& name) {
  return {{"ph", "M"}, {"name", what}, {"pid", process}, {"tid", row}, {"args", {{"name", name}}}};
}

// Moves all times of a step to the clock of the axis.
void Shift(int64_t us, StepTrace* step) {
  for (TimeUs* time :
       {&step->wait_from_us, &step->read_at_us, &step->submit_from_us, &step->submit_end_us,
        &step->device_from_us, &step->device_end_us, &step->ready_at_us, &step->written_at_us}) {
    *time += us;
  }
}

// The slices of one row. A slice is cut to begin at or after the end of the previous one.
class Slices {
 public:
  Slices(int process, Row row, TimeUs origin_us)
      : process_(process), row_(row), origin_us_(origin_us), end_us_(origin_us) {}

  void Add(std::string name, Span span, Json args) {
    const TimeUs from_us = std::max(span.from_us, end_us_);
    end_us_ = std::max(span.to_us, from_us);
    slices_.push_back({{"ph", "X"},
                       {"name", std::move(name)},
                       {"pid", process_},
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
  const int process_;
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

namespace {

void AddSlices(const WorkerTrace& worker, int process, const std::vector<Span>& device,
               TimeUs origin_us, std::vector<Json>* slices) {
  Slices engine(process, kEngine, origin_us), computing(process, kDevice, origin_us),
      result(process, kResult, origin_us);
  for (size_t i = 0; i < worker.steps.size(); ++i) {
    const StepTrace& step = worker.steps[i];
    engine.AddIfAny("read", {step.wait_from_us, step.read_at_us}, step);
    engine.AddIfAny("wait for room", {step.read_at_us, step.submit_from_us}, step);
    engine.AddIfAny("submit", {step.submit_from_us, step.submit_end_us}, step);
    computing.Add(NameOf(step), device[i], ArgsOf(step));
    result.AddIfAny("collect", {step.device_end_us, step.ready_at_us}, step);
    result.AddIfAny("write", {step.ready_at_us, step.written_at_us}, step);
  }
  for (Slices* row : {&engine, &computing, &result}) row->MoveTo(slices);
}

void AddNames(const WorkerTrace& worker, int process, Json* events) {
  events->push_back(Metadata("process_name", process, 0, worker.name));
  Json place = Metadata("process_sort_index", process, 0, "");
  place["args"] = {{"sort_index", process}};
  events->push_back(std::move(place));
  for (const auto& [row, name] : kRows) {
    events->push_back(Metadata("thread_name", process, row, name));
    Json order = Metadata("thread_sort_index", process, row, name);
    order["args"] = {{"sort_index", int{row}}};
    events->push_back(std::move(order));
  }
}

}  // namespace

ClockDifference BestDifference(const std::vector<ClockSample>& samples) {
  const ClockSample& best = *std::ranges::min_element(
      samples, {}, [](const ClockSample& s) { return s.received_us - s.sent_us; });
  // The worker's clock was read at any time between sending and receiving.
  const int64_t least_us = best.answered_us - best.received_us;
  const int64_t most_us = best.answered_us - best.sent_us;
  if (least_us <= 0 && most_us >= 0) return {};
  return {(least_us + most_us) / 2, (most_us - least_us + 1) / 2};
}

Json TraceJson(std::vector<WorkerTrace> workers) {
  std::vector<std::vector<Span>> device;
  TimeUs origin_us = std::numeric_limits<TimeUs>::max();
  for (WorkerTrace& worker : workers) {
    for (StepTrace& step : worker.steps) Shift(-worker.clock_ahead_us, &step);
    device.push_back(DeviceSpans(worker.steps));
    if (worker.steps.empty()) continue;
    origin_us = std::min(origin_us, OriginOf(worker.steps, device.back()));
  }
  std::vector<Json> slices;
  Json events = Json::array();
  for (size_t i = 0; i < workers.size(); ++i) {
    const int process = static_cast<int>(i) + 1;
    AddNames(workers[i], process, &events);
    AddSlices(workers[i], process, device[i], origin_us, &slices);
  }
  std::stable_sort(slices.begin(), slices.end(), [](const Json& a, const Json& b) {
    return a["ts"].get<int64_t>() < b["ts"].get<int64_t>();
  });
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
