// What the metrics cost: the time of the calls that the three processes make for one token of one
// stream (a step of one row), and of one scrape. Prints a table.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "common/metrics.h"
#include "common/output.h"
#include "router/router_metrics.h"
#include "scheduler/driver_metrics.h"
#include "worker/worker_metrics.h"

namespace fathom {
namespace {

// The best of ten rounds, in ns for each call.
double NsOf(int calls, const std::function<void()>& call) {
  double best = 1e18;
  for (int round = 0; round < 10; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) call();
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count() / calls);
  }
  return best;
}

void Row(const char* what, double ns) { PrintAnswer("{:<58}{:>12.0f} ns\n", what, ns); }

int Main() {
  Metrics of_router("router"), of_scheduler("scheduler"), of_worker("worker");
  router::RouterMetrics router(&of_router, "fathom-tiny");
  scheduler::DriverMetrics scheduler(&of_scheduler);
  worker::WorkerMetrics worker(&of_worker);

  StepPlan plan;
  plan.chunks.emplace_back();  // A decode row.
  StepResult result;
  result.rows.emplace_back();
  result.timings = {300, 280, 0};
  const worker::StepStream stream{};
  scheduler::RankTimes ranks({1, 1});

  constexpr int kCalls = 200'000;
  const double in_router = NsOf(kCalls, [&] { router.TokenGap(320, 1); });
  const double in_scheduler = NsOf(kCalls, [&] {
    scheduler.ObservePlan(plan);
    ranks.Add(0, result.timings);
    scheduler.ObserveStep(300);
  });
  const double in_worker = NsOf(kCalls, [&] { worker.OnStep(plan, result, stream); });
  Row("router: a token", in_router);
  Row("scheduler: a step (plan, times of a rank, result)", in_scheduler);
  Row("worker: a step", in_worker);
  Row("router and scheduler together, for a token of one stream", in_router + in_scheduler);

  const router::FinishedRequest request{.timings = {}, .usage = {100, 200, 0}, .max_tokens = 200};
  Row("router: the end of a request", NsOf(kCalls, [&] { router.Finished(request); }));
  Row("scheduler: gauges, at most 20 times a second", NsOf(20'000, [&] {
        scheduler.Update({}, {}, {}, TermId{1}, 1);
        scheduler.UpdateRanks({});
      }));
  Row("router: a scrape", NsOf(200, [&] { of_router.Text(); }));
  Row("scheduler: a scrape", NsOf(200, [&] { of_scheduler.Text(); }));
  Row("worker: a scrape", NsOf(200, [&] { of_worker.Text(); }));
  return EndAnswer("metrics_bench", 0);
}

}  // namespace
}  // namespace fathom

int main() { return fathom::Main(); }
