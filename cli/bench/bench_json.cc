#include "cli/bench/bench_json.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace fathom::client {
namespace {

using Json = nlohmann::ordered_json;

std::string TextOf(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

Json LastObject(const std::string& text) {
  Json last;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (text[begin] == '{') {
      Json line = Json::parse(text.substr(begin, end - begin), nullptr, /*allow_exceptions=*/false);
      if (line.is_object()) last = std::move(line);
    }
    begin = end + 1;
  }
  return last;
}

double NumberOf(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number() ? it->get<double>() : 0;
}

}  // namespace

Json MetricsJson(const std::vector<Metric>& metrics) {
  Json all = Json::array();
  for (const Metric& m : metrics) {
    Json one = {{"name", m.name},
                {"value", m.value},
                {"unit", m.unit},
                {"higher_is_better", m.higher_is_better},
                {"noise", m.noise}};
    if (m.floor > 0) {
      one["floor"] = m.floor;
      one["share"] = m.share();
    }
    all.push_back(std::move(one));
  }
  return all;
}

Json DistributionJson(const Distribution& d) {
  return {{"min", d.min}, {"mean", d.mean}, {"median", d.median},
          {"p90", d.p90}, {"p99", d.p99},   {"max", d.max}};
}

absl::StatusOr<std::vector<Metric>> ParseBaseline(const std::string& text, const RunKey& run) {
  const Json all = LastObject(text);
  if (!all.is_object() || !all.contains("metrics") || !all["metrics"].is_array()) {
    return Invalid("it holds no metrics; give a file that fathom bench --json wrote");
  }
  for (const auto& [key, value] : run) {
    const std::string before = all.contains(key) ? TextOf(all[key]) : "nothing";
    if (before != value) {
      return Invalid("{} is {} there and {} here; only equal loads can be compared", key, before,
                     value);
    }
  }
  std::vector<Metric> metrics;
  for (const Json& one : all["metrics"]) {
    if (!one.is_object() || !one.contains("name") || !one["name"].is_string()) {
      return Invalid("a metric has no name; give a file that fathom bench --json wrote");
    }
    metrics.push_back({.name = one["name"].get<std::string>(),
                       .value = NumberOf(one, "value"),
                       .noise = NumberOf(one, "noise")});
  }
  return metrics;
}

absl::StatusOr<StartReport> ParseReady(const std::string& line) {
  const Json all = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!all.is_object() || !all.contains("event") || all["event"] != "ready") {
    return Invalid("not a line that says that a cluster is ready");
  }
  StartReport report{.start_us = static_cast<int64_t>(NumberOf(all, "start_us"))};
  for (const Json& part : all.value("timeline", Json::array())) {
    report.parts.push_back(
        {TextOf(part.value("name", Json(""))), static_cast<int64_t>(NumberOf(part, "us"))});
  }
  return report;
}

std::vector<Metric> StartMetrics(const std::vector<StartReport>& starts) {
  std::vector<double> whole, worker;
  std::vector<std::string> order;
  std::map<std::string, std::vector<double>> parts;
  for (const StartReport& start : starts) {
    double worker_us = 0;
    for (const Part& part : start.parts) {
      if (!parts.contains(part.name)) order.push_back(part.name);
      parts[part.name].push_back(static_cast<double>(part.us) / 1e3);
      if (part.name.starts_with("worker 0")) worker_us += static_cast<double>(part.us);
    }
    whole.push_back(static_cast<double>(start.start_us) / 1e3);
    worker.push_back(worker_us / 1e3);
  }
  std::vector<Metric> metrics = {MedianMetric("start_ms", "ms", false, whole),
                                 MedianMetric("worker_ms", "ms", false, worker)};
  for (const std::string& name : order) {
    metrics.push_back(MedianMetric(name, "ms", false, parts[name]));
  }
  return metrics;
}

}  // namespace fathom::client
