#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/accept/accept_rules.h"
#include "cli/bench/bench_json.h"
#include "cli/report/page.h"

namespace fathom::client {
namespace {

struct LatencySamples {
  std::vector<double> first_ms;       // Of each request, in order.
  std::vector<double> gaps_ms;        // Of all requests.
  std::vector<double> worst_gaps_ms;  // Of each request.
};

LatencySamples SamplesOf(const std::vector<RequestTrace>& traces) {
  LatencySamples samples;
  for (const RequestTrace& trace : traces) {
    if (trace.frames.empty()) continue;
    samples.first_ms.push_back(static_cast<double>(trace.frames[0].at_us - trace.sent_us) / 1e3);
    double worst_ms = 0;
    for (size_t i = 1; i < trace.frames.size(); ++i) {
      const auto us = static_cast<double>(trace.frames[i].at_us - trace.frames[i - 1].at_us);
      const double gap_ms = us / 1e3 / trace.frames[i].tokens;
      samples.gaps_ms.insert(samples.gaps_ms.end(), static_cast<size_t>(trace.frames[i].tokens),
                             gap_ms);
      worst_ms = std::max(worst_ms, gap_ms);
    }
    samples.worst_gaps_ms.push_back(worst_ms);
  }
  return samples;
}

ChartSeries LineOver(const std::string& name, double x_high, double y) {
  return {.name = name, .points = {{0, y}, {x_high, y}}, .dashed = true};
}

// The value at each percentile.
Chart PercentileChart(const std::string& title, std::vector<double> values, double floor_ms,
                      const LatencyLimits& limits) {
  Chart chart{.title = title,
              .note = "the share of values (in %) that are at most so long",
              .x_label = "percentile",
              .y_label = "ms",
              .log_y = true};
  std::sort(values.begin(), values.end());
  ChartSeries series{.name = "measured"};
  for (int percent = 1; percent <= 100 && !values.empty(); ++percent) {
    const size_t at = (values.size() * static_cast<size_t>(percent) + 99) / 100;
    series.points.emplace_back(percent, values[at - 1]);
  }
  chart.series.push_back(std::move(series));
  if (floor_ms > 0) {
    chart.series.push_back(LineOver("limit of the median", 100, floor_ms * limits.factor));
    chart.series.push_back(LineOver("limit of p99", 100, floor_ms * limits.tail_factor));
    chart.series.push_back(LineOver("floor", 100, floor_ms));
  }
  return chart;
}

Chart OrderChart(const LatencySamples& samples) {
  Chart chart{.title = "In the order of sending",
              .note = "a slow beginning shows what the first requests warm up",
              .x_label = "request",
              .y_label = "ms",
              .log_y = true};
  const auto add = [&](const std::string& name, const std::vector<double>& values) {
    ChartSeries series{.name = name};
    for (size_t i = 0; i < values.size(); ++i) {
      series.points.emplace_back(static_cast<double>(i + 1), values[i]);
    }
    chart.series.push_back(std::move(series));
  };
  add("first token", samples.first_ms);
  add("longest gap", samples.worst_gaps_ms);
  return chart;
}

std::string VerdictOf(const AcceptReport& report) {
  const auto failed = std::ranges::count(report.checks, Outcome::kFailed, &AcceptCheck::outcome);
  const auto skipped = std::ranges::count(report.checks, Outcome::kSkipped, &AcceptCheck::outcome);
  return fmt::format("{}: {} checks, {} failed, {} skipped", failed == 0 ? "accepted" : "refused",
                     report.checks.size(), failed, skipped);
}

std::string SubjectOf(const AcceptReport& report) {
  const AcceptRun& run = report.run;
  return fmt::format("{} at {}, build {}, {}", run.model.name, run.server, run.before.build,
                     run.when);
}

}  // namespace

std::string ToText(const AcceptReport& report) {
  std::string text = SubjectOf(report) + "\n";
  for (const AcceptCheck& check : report.checks) {
    text += fmt::format("{:<8} {:<34} {}\n", NameOf(check.outcome), check.name, check.found);
    if (check.outcome != Outcome::kPassed) {
      text += fmt::format("{:<43} wanted: {}\n", "", check.wanted);
    }
  }
  const AcceptRun& run = report.run;
  if (!run.traces.empty()) {
    text += fmt::format("\nthe first {} requests: {} tokens in, {} out, {} at once\n{}",
                        run.traces.size(), run.input_len, run.output_len, run.concurrency,
                        SummaryText(Summarize(run.traces, run.wall_us)));
  }
  return text + "\n" + VerdictOf(report) + "\n";
}

nlohmann::ordered_json ToJson(const AcceptReport& report) {
  const AcceptRun& run = report.run;
  nlohmann::ordered_json checks = nlohmann::ordered_json::array();
  for (const AcceptCheck& check : report.checks) {
    checks.push_back({{"name", check.name},
                      {"outcome", NameOf(check.outcome)},
                      {"found", check.found},
                      {"wanted", check.wanted}});
  }
  nlohmann::ordered_json processes = nlohmann::ordered_json::array();
  for (const ProcessVersion& process : run.processes) {
    processes.push_back({{"address", process.address},
                         {"role", process.role},
                         {"version", process.version},
                         {"commit", process.commit},
                         {"error", process.error}});
  }
  const BenchSummary all = Summarize(run.traces, run.wall_us);
  const LatencySamples samples = SamplesOf(run.traces);
  return {{"accepted", Passed(report.checks)},
          {"server", run.server},
          {"time", run.when},
          {"model", run.model.name},
          {"device", run.model.device},
          {"dtype", run.model.dtype},
          {"fingerprint", run.model.fingerprint},
          {"build", run.before.build},
          {"processes", std::move(processes)},
          {"checks", std::move(checks)},
          {"latency",
           {{"requests", run.traces.size()},
            {"input_len", run.input_len},
            {"output_len", run.output_len},
            {"concurrency", run.concurrency},
            {"floor_source", report.limits.source},
            {"step_floor_ms", report.limits.step_floor_ms},
            {"first_floor_ms", report.limits.first_floor_ms},
            {"factor", report.limits.factor},
            {"tail_factor", report.limits.tail_factor},
            {"first_token_ms", DistributionJson(all.ttft_ms)},
            {"gap_ms", DistributionJson(all.itl_ms)},
            {"first_token_ms_of_each", samples.first_ms}}}};
}

std::string ToHtml(const AcceptReport& report) {
  const AcceptRun& run = report.run;
  Page page("Fathom acceptance", SubjectOf(report));
  page.AddVerdict(Passed(report.checks), VerdictOf(report));
  std::vector<std::vector<TableCellText>> rows;
  for (const AcceptCheck& check : report.checks) {
    const Mark mark = check.outcome == Outcome::kPassed   ? Mark::kGood
                      : check.outcome == Outcome::kFailed ? Mark::kBad
                                                          : Mark::kNone;
    rows.push_back({{check.name}, {NameOf(check.outcome), mark}, {check.found}, {check.wanted}});
  }
  page.AddTable({"check", "outcome", "found", "wanted"}, rows);
  const LatencySamples samples = SamplesOf(run.traces);
  const BenchSummary all = Summarize(run.traces, run.wall_us);
  page.AddHeading("Latency of the first requests");
  page.AddText(fmt::format(
      "{} requests of {} prompt tokens and {} answer tokens, {} at once, without a warm-up. "
      "Floors: {}.",
      run.traces.size(), run.input_len, run.output_len, run.concurrency,
      report.limits.source.empty() ? "none given, so latency was not judged"
                                   : report.limits.source));
  rows.clear();
  const auto add = [&](const char* name, const Distribution& d, double floor_ms) {
    rows.push_back({{name}});
    for (const double value : {d.median, d.p90, d.p99, d.max}) {
      rows.back().push_back({fmt::format("{:.3f}", value)});
    }
    rows.back().push_back({floor_ms > 0 ? fmt::format("{:.3f}", floor_ms) : "-"});
  };
  add("first token, ms", all.ttft_ms, report.limits.first_floor_ms);
  add("gap between tokens, ms", all.itl_ms, report.limits.step_floor_ms);
  page.AddTable({"", "p50", "p90", "p99", "max", "floor"}, rows);
  page.AddCharts({PercentileChart("First token", samples.first_ms, report.limits.first_floor_ms,
                                  report.limits),
                  PercentileChart("Gap between two tokens", samples.gaps_ms,
                                  report.limits.step_floor_ms, report.limits),
                  OrderChart(samples)});
  page.AddHeading("Processes");
  rows.clear();
  for (const ProcessVersion& process : run.processes) {
    rows.push_back(
        {{process.address}, {process.role}, {process.version}, {process.commit}, {process.error}});
  }
  for (const RankStatus& rank : run.before.ranks) {
    rows.push_back({{rank.host}, {fmt::format("group {} rank {}", rank.group, rank.rank)}});
  }
  page.AddTable({"address", "role", "version", "commit", "not known because"}, rows);
  return page.Html();
}

}  // namespace fathom::client
