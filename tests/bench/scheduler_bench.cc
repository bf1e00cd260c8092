// What the scheduler core costs: the time of one event (with the plans and frames that follow from
// it) by running sequences, waiting sequences, groups and prompt length, and the bytes that it
// holds for each request and block. docs/PERFORMANCE.md, "Scheduler core", has the results.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/output.h"
#include "scheduler/core/scheduler_core.h"

namespace fathom::scheduler {
namespace {

using Clock = std::chrono::steady_clock;

// A core with groups that answer each plan at once. Only SchedulerCore::Step is timed.
class Bench {
 public:
  struct Setup {
    int32_t groups = 1;
    int32_t slots = 256;
    int32_t blocks = 1 << 20;
    int32_t step_tokens = 8192;
    int32_t plans_in_flight = 2;
    std::string policy = "fcfs";
  };

  explicit Bench(const Setup& setup)
      : core_({.policy = setup.policy,
               .waiting_requests_max = 1 << 20,
               .waiting_tokens_max = int64_t{1} << 40,
               .session_memory_bytes_max = int64_t{1} << 40,
               .record_keep_us = 1}) {
    const GroupLimits limits{.blocks = setup.blocks,
                             .block_tokens = 64,
                             .slots = setup.slots,
                             .step_tokens = setup.step_tokens,
                             .context_tokens = 1 << 24,
                             .plans_in_flight = setup.plans_in_flight};
    for (int32_t i = 0; i < setup.groups; ++i) {
      const ComputeKind kind{"0123456789abcdef", "bfloat16", "cuda-sm90", 1, 1};
      Feed(GroupUp{GroupId{i}, TermId{1}, EpochId{1}, limits, "0123456789abcdef", kind});
    }
  }

  // Returns the time of the event in seconds.
  double Feed(Event event) {
    now_ += 100;
    const Clock::time_point start = Clock::now();
    Actions actions = core_.Step(std::move(event), now_);
    const double took_s = std::chrono::duration<double>(Clock::now() - start).count();
    for (PlanOut& out : actions.plans) Take(std::move(out));
    return took_s;
  }

  // `first`: prompts with different ones have no tokens in common.
  double Submit(int32_t prompt_tokens, int32_t max_tokens, int32_t first) {
    Record record;
    record.key = {"tenant", fmt::format("a-request-with-a-usual-id-{}", ++submitted_)};
    record.seed = submitted_;
    record.prompt_ids.resize(static_cast<size_t>(prompt_tokens));
    for (int32_t i = 0; i < prompt_tokens; ++i) {
      record.prompt_ids[static_cast<size_t>(i)] = (first * 7919 + i) % 100'000;
    }
    record.request.stop.max_tokens = max_tokens;
    fathom::Submit submit{.attempt = AttemptId{submitted_}, .key = record.key};
    submit.record = std::move(record);
    return Feed(Routed<fathom::Submit>{PeerId{1}, std::move(submit)});
  }

  // Answers the oldest plan of any group.
  double Answer() {
    const auto [group, result] = std::move(results_.front());
    results_.pop_front();
    return Feed(StepDone{group, result});
  }
  bool idle() const { return results_.empty(); }
  CoreStats stats() const { return core_.Stats(); }

  // Until all running prompts are computed.
  void Settle() {
    for (int i = 0; i < 4 * static_cast<int>(results_.size()) + 8 && !idle(); ++i) Answer();
  }

 private:
  struct Slot {
    int32_t prompt = 0, known = 0;
  };

  void Take(PlanOut out) {
    auto& slots = slots_[out.group];
    StepResult result{.term = out.plan.term, .epoch = out.plan.epoch, .step = out.plan.step};
    for (const Admit& admit : out.plan.admits) {
      slots[admit.slot] = {admit.prompt_tokens, static_cast<int32_t>(admit.ids.size())};
    }
    for (size_t i = 0; i < out.plan.chunks.size(); ++i) {
      if (!out.plan.chunks[i].sample) continue;
      Slot& slot = slots[out.plan.chunks[i].slot];
      ResultRow row{.row = static_cast<int32_t>(i), .position = slot.known++ - slot.prompt};
      row.ids = {7};
      result.rows.push_back(std::move(row));
    }
    results_.emplace_back(out.group, std::move(result));
  }

  SchedulerCore core_;
  TimeUs now_ = 1;
  uint64_t submitted_ = 0;
  std::map<GroupId, std::map<SlotId, Slot>> slots_;
  std::deque<std::pair<GroupId, StepResult>> results_;
};

constexpr int32_t kEndless = 1 << 22;  // Tokens of an answer that does not end here.

// The median is robust against other programs of the machine, the mean is not.
class Times {
 public:
  explicit Times(benchmark::State* state) : state_(*state) {}
  ~Times() {
    if (us_.empty()) return;
    std::nth_element(us_.begin(), us_.begin() + std::ssize(us_) / 2, us_.end());
    state_.counters["median_us"] = us_[us_.size() / 2];
  }
  void Add(double seconds) {
    us_.push_back(seconds * 1e6);
    state_.SetIterationTime(seconds);
  }

 private:
  benchmark::State& state_;
  std::vector<double> us_;
};

// A step of range(0) decode rows: its result is applied, frames are made, the next step is planned.
// range(1) sequences wait meanwhile.
void BM_Step(benchmark::State& state) {
  const auto rows = static_cast<int32_t>(state.range(0));
  Bench bench({.slots = rows});
  for (int32_t i = 0; i < rows; ++i) bench.Submit(100, kEndless, i);
  bench.Settle();
  for (int32_t i = 0; i < state.range(1); ++i) bench.Submit(100, 100, rows + i);
  bench.Settle();
  Times times(&state);
  for (auto _ : state) times.Add(bench.Answer());
  state.counters["running"] = bench.stats().requests_running;
  state.counters["waiting"] = bench.stats().requests_waiting;
}
BENCHMARK(BM_Step)
    ->Args({1, 0})
    ->Args({16, 0})
    ->Args({64, 0})
    ->Args({256, 0})
    ->Args({1024, 0})
    ->Args({256, 100})
    ->Args({256, 1000})
    ->Args({256, 10'000})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// Each of 64 groups computes range(0) sequences; range(1) sequences wait.
void BM_StepOf64Groups(benchmark::State& state) {
  constexpr int32_t kGroups = 64;
  const auto rows = static_cast<int32_t>(state.range(0));
  Bench bench({.groups = kGroups, .slots = rows});
  for (int32_t i = 0; i < kGroups * rows; ++i) bench.Submit(100, kEndless, i);
  bench.Settle();
  for (int32_t i = 0; i < state.range(1); ++i) bench.Submit(100, 100, i);
  for (int i = 0; i < 4 * kGroups; ++i) bench.Answer();
  Times times(&state);
  for (auto _ : state) times.Add(bench.Answer());
  state.counters["running"] = bench.stats().requests_running;
  state.counters["waiting"] = bench.stats().requests_waiting;
}
BENCHMARK(BM_StepOf64Groups)
    ->Args({16, 0})
    ->Args({64, 0})
    ->Args({64, 1000})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// A request of range(0) prompt tokens arrives and is planned at once. The blocks of the pool were
// all used before. range(1): 1: its prompt was computed before, 0: it is new.
void BM_Admission(benchmark::State& state) {
  const auto tokens = static_cast<int32_t>(state.range(0));
  Bench bench({.slots = 64, .blocks = 16'384});
  int32_t first = 0;
  const int32_t fill = 16'384 * 64 / tokens + 1;
  for (; first < fill; ++first) {
    bench.Submit(tokens, 2, first);
    while (!bench.idle()) bench.Answer();
  }
  Times times(&state);
  for (auto _ : state) {
    const int32_t prompt = state.range(1) == 1 ? fill - 1 - first++ % 64 : first++;
    times.Add(bench.Submit(tokens, 2, prompt));
    while (!bench.idle()) bench.Answer();
  }
}
BENCHMARK(BM_Admission)
    ->Args({256, 0})
    ->Args({4096, 0})
    ->Args({4096, 1})
    ->Args({32'768, 0})
    ->Iterations(200)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

int64_t HeldBytes() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
}

// The bytes of what a core holds, from the difference between two sizes.
void PrintBytes() {
  const auto bytes_of = [](const Bench::Setup& setup, int32_t requests, int32_t prompt_tokens) {
    const int64_t before = HeldBytes();
    Bench bench(setup);
    for (int32_t i = 0; i < requests; ++i) bench.Submit(prompt_tokens, kEndless, i);
    bench.Settle();
    return HeldBytes() - before;
  };
  const Bench::Setup setup{.slots = 4096, .step_tokens = 1 << 20};
  const int64_t request = (bytes_of(setup, 4000, 128) - bytes_of(setup, 2000, 128)) / 2000;
  const Bench::Setup large{.slots = 4096, .blocks = 1 << 21, .step_tokens = 1 << 20};
  const double block =
      static_cast<double>(bytes_of(large, 0, 0) - bytes_of(setup, 0, 0)) / (1 << 20);
  PrintAnswer(
      "bytes held: {} for a running request of 128 prompt tokens (this program's share included), "
      "{:.1f} for each block of a pool\n",
      request, block);
}

}  // namespace
}  // namespace fathom::scheduler

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 64;
  fathom::scheduler::PrintBytes();
  fathom::FlushAnswer();
  benchmark::RunSpecifiedBenchmarks();
  return fathom::EndAnswer("scheduler_bench", 0);
}
