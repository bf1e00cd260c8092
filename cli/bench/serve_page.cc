#include <fmt/format.h>

#include <algorithm>

#include "cli/bench/serve_stats.h"
#include "cli/report/page.h"

namespace fathom::client {
namespace {

std::string LoadLabel(const LoadLevel& level) { return fmt::format("{:g}/s", level.offered_per_s); }

// A line over the loads: x and y of each level.
template <class X, class Y>
ChartSeries Over(const ServeRun& run, const std::string& name, X x, Y y, bool labels = false) {
  ChartSeries series{.name = name};
  for (const LoadLevel& level : run.levels) {
    series.points.emplace_back(x(level), y(level));
    if (labels) series.labels.push_back(LoadLabel(level));
  }
  return series;
}

double Offered(const LoadLevel& level) { return level.offered_per_s; }
double TokensPerSecond(const LoadLevel& level) { return level.summary.output_tokens_per_s; }

// Percentiles of one distribution over the offered load.
Chart OverLoad(const ServeRun& run, const std::string& title, const std::string& note,
               Distribution BenchSummary::*part, double limit_ms) {
  Chart chart{.title = title,
              .note = note,
              .x_label = "offered load, requests/s",
              .y_label = "ms",
              .log_y = true};
  const auto add = [&](const char* name, double Distribution::*value) {
    chart.series.push_back(Over(
        run, name, Offered, [=](const LoadLevel& level) { return level.summary.*part.*value; }));
  };
  add("p50", &Distribution::median);
  add("p90", &Distribution::p90);
  add("p99", &Distribution::p99);
  if (limit_ms > 0 && !run.levels.empty()) {
    chart.series.push_back({.name = "limit (SLO)",
                            .points = {{0, limit_ms}, {Offered(run.levels.back()), limit_ms}},
                            .dashed = true});
  }
  return chart;
}

Chart ThroughputChart(const ServeRun& run) {
  Chart chart{.title = "Throughput against latency",
              .note = "each point is one load; to the right and down is better",
              .x_label = "output tokens/s",
              .y_label = "time to first token, ms",
              .log_y = true};
  chart.series = {Over(
                      run, "TTFT p50", TokensPerSecond,
                      [](const LoadLevel& level) { return level.summary.ttft_ms.median; }, true),
                  Over(run, "TTFT p99", TokensPerSecond,
                       [](const LoadLevel& level) { return level.summary.ttft_ms.p99; })};
  return chart;
}

Chart InteractivityChart(const ServeRun& run) {
  Chart chart{.title = "Throughput against speed for one user",
              .note = "one user's speed is 1 / TPOT (median); to the right and up is better",
              .x_label = "output tokens/s",
              .y_label = "tokens/s for one user"};
  chart.series = {Over(
      run, "1 / TPOT p50", TokensPerSecond,
      [](const LoadLevel& level) {
        const double tpot_ms = level.summary.tpot_ms.median;
        return tpot_ms > 0 ? 1000 / tpot_ms : 0;
      },
      true)};
  return chart;
}

Chart GoodputChart(const ServeRun& run) {
  Chart chart{.title = "Goodput",
              .note = "requests a second that meet every limit; the dashed line is all of them",
              .x_label = "offered load, requests/s",
              .y_label = "requests/s"};
  chart.series = {
      Over(run, "goodput", Offered, [](const LoadLevel& level) { return level.goodput_per_s; }),
      Over(run, "answered", Offered,
           [](const LoadLevel& level) { return level.summary.requests_per_s; })};
  const double most = run.levels.empty() ? 0 : Offered(run.levels.back());
  chart.series.push_back({.name = "offered", .points = {{0, 0}, {most, most}}, .dashed = true});
  return chart;
}

Chart DistributionChart(const ServeRun& run) {
  Chart chart{.title = "Time to first token, whole distribution",
              .note = "the share of requests (in %) that wait at most so long, for each load",
              .x_label = "percentile",
              .y_label = "ms",
              .log_y = true};
  for (const LoadLevel& level : run.levels) {
    ChartSeries series{.name = LoadLabel(level)};
    const size_t count = level.ttft_ms.size();
    for (size_t percent = 1; percent <= 100 && count > 0; ++percent) {
      series.points.emplace_back(percent, level.ttft_ms[(count * percent + 99) / 100 - 1]);
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

void AddLoadTables(const ServeRun& run, Page* page) {
  std::vector<std::vector<TableCellText>> rates, times;
  for (const LoadLevel& level : run.levels) {
    const BenchSummary& s = level.summary;
    const TableCellText offered = {fmt::format("{:g}", level.offered_per_s)};
    rates.push_back(
        {offered,
         {fmt::format("{:.2f}", s.requests_per_s), level.saturated() ? Mark::kBad : Mark::kNone},
         {fmt::format("{:.1f}", s.output_tokens_per_s)},
         {fmt::format("{:.1f}", s.total_tokens_per_s)},
         {fmt::format("{:.2f}", level.goodput_per_s)},
         {fmt::format("{:.0f} %", 100 * level.good_share)},
         {fmt::format("{}", level.failed), level.failed > 0 ? Mark::kBad : Mark::kNone},
         {fmt::format("{:.0f} %", 100 * level.cached_share)},
         {fmt::format("{:.2f}", level.growth), level.saturated() ? Mark::kBad : Mark::kNone},
         {fmt::format("{:.1f}", level.late_ms_max)},
         {fmt::format("{:.2f}", level.client_cpus)}});
    times.push_back({offered});
    for (const Distribution* const d : {&s.ttft_ms, &s.tpot_ms, &s.itl_ms, &s.e2e_ms}) {
      for (const double value : {d->median, d->p90, d->p99}) {
        times.back().push_back({fmt::format("{:.2f}", value)});
      }
    }
  }
  page->AddHeading("Each load");
  page->AddTable({"offered/s", "answered/s", "output tok/s", "total tok/s", "goodput/s", "good",
                  "failed", "cached", "growth", "late ms", "client CPUs"},
                 rates);
  page->AddTable({"offered/s", "TTFT p50", "p90", "p99", "TPOT p50", "p90", "p99", "ITL p50", "p90",
                  "p99", "E2E p50", "p90", "p99"},
                 times);
}

void AddMethod(const ServeRun& run, Page* page) {
  page->AddHeading("How it was measured");
  page->AddText(fmt::format(
      "Open loop: {} arrivals at the offered rate, whether or not earlier answers have come. Every "
      "latency counts from the moment at which the request was due, so a cluster that falls behind "
      "shows it (no coordinated omission). Workload {}: {:.0f} tokens in and {:.0f} out on "
      "average, "
      "lengths scaled by {:g}, {} requests shortened for the context; greedy sampling, end tokens "
      "ignored, seed {}, {} requests in each of {} round{} for each load.",
      run.arrivals, run.workload, run.input_mean, run.output_mean, run.scale, run.shortened,
      run.seed, run.requests, run.repeats, run.repeats > 1 ? "s" : ""));
  page->AddText(
      "TTFT: first token received minus due. TPOT: (last token minus first token) / (tokens - 1) "
      "of a request. ITL: the time between two tokens, over all requests; a frame of k tokens "
      "counts as k gaps. E2E: end of the answer minus due. Throughput: tokens between the first "
      "due time and the last end; this time includes the answers that end after the last arrival, "
      "so a round that is not many times longer than an answer shows less than the cluster can do. "
      "`growth`: requests in flight in the last quarter of the arrivals "
      "over "
      "those in the second; red: the load is too high, the queue grows. `late` is the longest time "
      "from due to sent and `client CPUs` what "
      "the sender used: if the first is not small, or the second near the machine's CPUs, the "
      "sender was the limit.");
  page->AddText(fmt::format(
      "Limits of the goodput: TTFT {:g} ms, TPOT {:g} ms{}.", run.slo.ttft_ms, run.slo.tpot_ms,
      run.slo.e2e_ms > 0 ? fmt::format(", E2E {:g} ms", run.slo.e2e_ms) : std::string()));
  std::vector<std::vector<TableCellText>> rows;
  for (const LoadLevel& level : run.levels) {
    for (const Metric& metric : level.metrics) {
      rows.push_back({{metric.name},
                      {fmt::format("{:.3f}", metric.value)},
                      {metric.unit},
                      {run.repeats > 1 ? fmt::format("{:.1f} %", 100 * metric.noise) : "-"}});
    }
  }
  page->AddHeading("Metrics for a baseline");
  page->AddText(
      "Medians of the rounds and their spread, (largest - least) / median. A later run with "
      "--baseline fails if one is worse by more than 1.5 times the larger spread of the two runs, "
      "and by more than 2 %.");
  page->AddTable({"metric", "value", "unit", "spread"}, rows);
}

}  // namespace

std::string ToHtml(const ServeRun& run) {
  Page page(fmt::format("{} under load", run.model),
            fmt::format("fathom bench serve, {} on {}, fingerprint {}, {}", run.dtype, run.device,
                        run.fingerprint, run.when));
  const auto keeps_up = std::ranges::find_if(run.levels.rbegin(), run.levels.rend(),
                                             [](const LoadLevel& l) { return !l.saturated(); });
  if (keeps_up != run.levels.rend()) {
    page.AddText(fmt::format(
        "The highest load that it keeps up with is {:g} requests/s: {:.1f} output tokens/s, TTFT "
        "p50 {:.1f} ms and p99 {:.1f} ms, TPOT p50 {:.2f} ms; {:.0f} % of the requests are good.",
        keeps_up->offered_per_s, keeps_up->summary.output_tokens_per_s,
        keeps_up->summary.ttft_ms.median, keeps_up->summary.ttft_ms.p99,
        keeps_up->summary.tpot_ms.median, 100 * keeps_up->good_share));
  } else {
    page.AddText(
        "It kept up with none of these loads: at each one the requests in flight grew until the "
        "end.");
  }
  page.AddCharts(
      {ThroughputChart(run), InteractivityChart(run), GoodputChart(run),
       OverLoad(run, "Time to first token", "from when a request was due", &BenchSummary::ttft_ms,
                run.slo.ttft_ms),
       OverLoad(run, "Time per output token", "mean gap of each request", &BenchSummary::tpot_ms,
                run.slo.tpot_ms),
       OverLoad(run, "Inter-token latency", "all gaps of all requests", &BenchSummary::itl_ms, 0),
       OverLoad(run, "End to end", "from when a request was due to its last token",
                &BenchSummary::e2e_ms, run.slo.e2e_ms),
       DistributionChart(run)});
  AddLoadTables(run, &page);
  AddMethod(run, &page);
  return page.Html();
}

}  // namespace fathom::client
