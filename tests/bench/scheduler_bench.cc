// What the scheduler core costs: the time of one event (with the plans and frames that follow from
// it) by running sequences, waiting sequences, groups and prompt length, and the bytes that it
// holds for each request and block. docs/PERFORMANCE.md, "Scheduler core", has the results.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <ctime>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cluster/protocol.h"
#include "common/output.h"
#include "scheduler/core/scheduler_core.h"

namespace fathom::scheduler {
namespace {

// CPU time of this thread: other programs of the machine do not count, except for the caches.
double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A core with groups that answer each plan at once. Only SchedulerCore::Step is timed.
class Bench {
 public:
  struct Setup {
    int32_t groups = 1;
    int32_t slots = 256;
    int32_t blocks = 1 << 20;
    int32_t block_tokens = 64;
    int32_t step_tokens = 8192;
    int32_t plans_in_flight = 2;
    std::string policy = "fcfs";
    bool prefix_caching = true;
  };

  explicit Bench(const Setup& setup)
      : core_({.policy = setup.policy,
               .waiting_requests_max = 1 << 20,
               .waiting_tokens_max = int64_t{1} << 40,
               .session_memory_bytes_max = int64_t{1} << 40,
               .record_keep_us = 1,
               .prefix_caching = setup.prefix_caching}) {
    const GroupLimits limits{.blocks = setup.blocks,
                             .block_tokens = setup.block_tokens,
                             .slots = setup.slots,
                             .step_tokens = setup.step_tokens,
                             .context_tokens = 1 << 24,
                             .plans_in_flight = setup.plans_in_flight,
                             .protocol = kProtocolMax};
    for (int32_t i = 0; i < setup.groups; ++i) {
      const ComputeKind kind{"0123456789abcdef", "bfloat16", "cuda-sm90", 1, 1};
      Feed(GroupUp{GroupId{i}, TermId{1}, EpochId{1}, limits, "0123456789abcdef", kind});
    }
  }

  // Returns the time of the event in seconds.
  double Feed(Event event) {
    now_ += 100;
    const double start_s = CpuSeconds();
    Actions actions = core_.Step(std::move(event), now_);
    const double took_s = CpuSeconds() - start_s;
    for (PlanOut& out : actions.plans) Take(std::move(out));
    return took_s;
  }

  // `first`: prompts with different ones have no tokens in common.
  double Submit(int32_t prompt_tokens, int32_t max_tokens, int32_t first,
                const std::string& tenant = "tenant") {
    Record record;
    record.key = {tenant, fmt::format("a-request-with-a-usual-id-{}", ++submitted_)};
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

  // Answers the oldest plan of any group, if there is one.
  double Answer() {
    if (results_.empty()) return 0;
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

// 64 groups under load, for each step of one of them: its result and its next plan, the arrivals of
// as many requests as ended with it, their admission, and the choice of their groups. 64 sequences
// run in each group and range(0) more requests are there than slots; answers have 100 tokens. The
// prompts, 512 tokens, are 512 different ones, so most are in the blocks of some groups, and the
// groups compare what a sequence costs here and elsewhere. The requests are of range(1) tenants,
// and the policy is fair if there are several.
void BM_LoadOf64Groups(benchmark::State& state) {
  constexpr int32_t kGroups = 64, kSlots = 64, kAnswer = 100;
  const auto tenants = static_cast<int32_t>(state.range(1));
  Bench bench({.groups = kGroups,
               .slots = kSlots,
               .blocks = 1 << 12,
               .policy = tenants > 1 ? "fair" : "fcfs"});
  int32_t sent = 0;
  const auto submit = [&] {
    const int32_t number = sent++;
    return bench.Submit(512, kAnswer, number * 37 % 512,
                        fmt::format("tenant-{}", number % tenants));
  };
  // The answers begin at different times, so that they end at different times.
  uint64_t ended = 0;
  for (int32_t i = 0; i < kGroups * 2 * kAnswer; ++i) {
    if (sent < kGroups * kSlots + state.range(0)) submit();
    bench.Answer();
    for (; ended < bench.stats().finished_total; ++ended) submit();
  }
  Times times(&state);
  double seconds = 0;
  int64_t admissions = 0;
  for (auto _ : state) {
    double took_s = bench.Answer();
    const uint64_t now_ended = bench.stats().finished_total;
    for (; ended < now_ended; ++ended, ++admissions) took_s += submit();
    times.Add(took_s);
    seconds += took_s;
  }
  const auto steps = static_cast<double>(state.iterations());
  state.counters["running"] = bench.stats().requests_running;
  state.counters["waiting"] = bench.stats().requests_waiting;
  state.counters["admissions_of_step"] = static_cast<double>(admissions) / steps;
  // Of one core, if each group does 50 steps a second.
  state.counters["share_at_50_steps"] = seconds / steps * 50 * kGroups;
}
BENCHMARK(BM_LoadOf64Groups)
    ->Args({0, 1})
    ->Args({1000, 1})
    ->Args({1000, 8})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// A request of range(0) prompt tokens arrives and is planned at once. The blocks of the pool, of
// range(2) tokens, were all used before. range(1): 2: there is no prefix cache; 1: the prompt was
// computed before, 0: it is new. range(3) other requests wait meanwhile: they are of a tenant that
// may run only one, so that they keep nobody waiting.
void BM_Admission(benchmark::State& state) {
  const auto tokens = static_cast<int32_t>(state.range(0));
  const auto block_tokens = static_cast<int32_t>(state.range(2));
  constexpr int32_t kPoolTokens = 1 << 20;
  Bench bench({.slots = 64,
               .blocks = kPoolTokens / block_tokens,
               .block_tokens = block_tokens,
               .prefix_caching = state.range(1) != 2});
  int32_t first = 0;
  const int32_t fill = kPoolTokens / tokens + 1;
  for (; first < fill; ++first) {
    bench.Submit(tokens, 2, first);
    while (!bench.idle()) bench.Answer();
  }
  if (state.range(3) > 0) {
    TenantTable table;
    table.tenants["held"] = {.running_max = 1};
    bench.Feed(TenantsChanged{table});
    for (int32_t i = 0; i <= state.range(3); ++i) bench.Submit(16, kEndless, 1000, "held");
  }
  Times times(&state);
  for (auto _ : state) {
    const int32_t prompt = state.range(1) == 1 ? fill - 1 - first++ % 64 : first++;
    double took_s = bench.Submit(tokens, 2, prompt);
    // A sequence of the other tenant runs, so that the plan comes with the next result.
    if (state.range(3) > 0) took_s += bench.Answer();
    times.Add(took_s);
    for (int32_t i = 0; i < 8; ++i) bench.Answer();
  }
  state.counters["waiting"] = bench.stats().requests_waiting;
}
BENCHMARK(BM_Admission)
    ->Args({256, 0, 64, 0})
    ->Args({4096, 0, 64, 0})
    ->Args({4096, 1, 64, 0})
    ->Args({4096, 2, 64, 0})
    ->Args({4096, 0, 16, 0})
    ->Args({4096, 1, 16, 0})
    ->Args({4096, 1, 64, 1000})
    ->Args({4096, 1, 64, 10'000})
    ->Args({32'768, 0, 64, 0})
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
