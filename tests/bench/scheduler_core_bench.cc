// What the scheduler core costs on one thread: a decode step of many sequences, and the admission
// of a long prompt with and without a hit in a full prefix index. Prints a table with the best of
// ten rounds, and the memory of the index.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "common/output.h"
#include "scheduler/core/scheduler_core.h"

namespace fathom::scheduler {
namespace {

constexpr GroupId kGroup{0};
constexpr int32_t kPromptTokens = 4096;
constexpr int32_t kSequences = 256;

double UsOf(const std::function<void()>& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  return took.count();
}

class CoreBench {
 public:
  explicit CoreBench(int32_t block_tokens, bool prefix_caching = true)
      : core_({.waiting_requests_max = 1 << 20,
               .waiting_tokens_max = int64_t{1} << 40,
               .prefix_caching = prefix_caching}) {
    const GroupLimits limits{.blocks = 1 + 400'000 / block_tokens,
                             .block_tokens = block_tokens,
                             .slots = 512,
                             .step_tokens = 8192,
                             .context_tokens = 8192,
                             .plans_in_flight = 2,
                             .protocol = kProtocol2};
    Take(core_.Step(GroupUp{kGroup, TermId{1}, EpochId{1}, limits, "kind", {}}, now_));
  }

  void Submit(std::vector<TokenId> prompt, int32_t max_tokens) {
    Routed<fathom::Submit> event{PeerId{1}, {.attempt = AttemptId{++submits_}}};
    Record record;
    record.key = {"default", std::to_string(submits_)};
    record.prompt_ids = std::move(prompt);
    record.request.stop.max_tokens = max_tokens;
    event.message.key = record.key;
    event.message.record = std::move(record);
    Take(core_.Step(std::move(event), ++now_));
  }

  // Answers the oldest plan with token 7 for each row that samples. Returns the time in the core.
  double Answer() {
    StepDone done{kGroup, ResultOf(plans_.front())};
    plans_.erase(plans_.begin());
    Actions actions;
    const double us = UsOf([&] { actions = core_.Step(std::move(done), ++now_); });
    Take(std::move(actions));
    return us;
  }
  void AnswerAll() {
    while (!plans_.empty()) Answer();
  }
  const CoreStats Stats() const { return core_.Stats(); }

 private:
  StepResult ResultOf(const StepPlan& plan) {
    StepResult result{.term = plan.term, .epoch = plan.epoch, .step = plan.step};
    if (positions_.size() < 513) positions_.resize(513);
    for (const Admit& admit : plan.admits) positions_[static_cast<size_t>(admit.slot.value)] = 0;
    for (size_t i = 0; i < plan.chunks.size(); ++i) {
      ResultRow row{.row = static_cast<int32_t>(i)};
      if (plan.chunks[i].sample) {
        row.position = positions_[static_cast<size_t>(plan.chunks[i].slot.value)]++;
        row.ids = {7};
      }
      result.rows.push_back(std::move(row));
    }
    return result;
  }
  void Take(Actions actions) {
    for (PlanOut& out : actions.plans) plans_.push_back(std::move(out.plan));
  }

  SchedulerCore core_;
  TimeUs now_ = 1;
  uint64_t submits_ = 0;
  std::vector<StepPlan> plans_;
  std::vector<int32_t> positions_;  // By slot.
};

std::vector<TokenId> Prompt(int32_t tokens, int32_t salt) {
  std::vector<TokenId> ids(static_cast<size_t>(tokens));
  for (int32_t i = 0; i < tokens; ++i) ids[static_cast<size_t>(i)] = (i * 31 + salt) % 100'000;
  return ids;
}

void Row(const std::string& what, double us) { PrintAnswer("{:<74}{:>9.1f} us\n", what, us); }

// The time of a result and the next plan, with `kSequences` that decode.
double DecodeUs(int32_t block_tokens, bool prefix_caching) {
  CoreBench bench(block_tokens, prefix_caching);
  for (int32_t i = 0; i < kSequences; ++i) bench.Submit(Prompt(64, i), 1200);
  for (int32_t i = 0; i < 20; ++i) bench.Answer();
  double best = 1e18;
  for (int round = 0; round < 10; ++round) {
    constexpr int kSteps = 64;
    double us = 0;
    for (int i = 0; i < kSteps; ++i) us += bench.Answer();
    best = std::min(best, us / kSteps);
  }
  return best;
}

// The time of a Submit whose prompt is planned at once. The index is full with other prompts;
// `hit`: the prompt is in it.
double AdmissionUs(int32_t block_tokens, bool prefix_caching, bool hit) {
  CoreBench bench(block_tokens, prefix_caching);
  for (int32_t i = 0; i < 120; ++i) {
    bench.Submit(Prompt(kPromptTokens, i * 97), 1);
    bench.AnswerAll();
  }
  double best = 1e18;
  for (int round = 0; round < 10; ++round) {
    const int32_t salt = hit ? (119 - round) * 97 : 200'000 + round * 89;
    std::vector<TokenId> prompt = Prompt(kPromptTokens, salt);
    best = std::min(best, UsOf([&] { bench.Submit(std::move(prompt), 1); }));
    bench.AnswerAll();
  }
  return best;
}

int Main() {
  for (const int32_t block_tokens : {16, 64}) {
    const auto name = [&](const char* what) {
      return fmt::format("blocks of {:<3} {}", block_tokens, what);
    };
    Row(name("a decode step of 256 sequences"), DecodeUs(block_tokens, true));
    Row(name("the same, --no-enable-prefix-caching"), DecodeUs(block_tokens, false));
    Row(name("admission of 4096 tokens, all found"), AdmissionUs(block_tokens, true, true));
    Row(name("admission of 4096 tokens, none found, blocks evicted"),
        AdmissionUs(block_tokens, true, false));
    Row(name("admission of 4096 tokens, --no-enable-prefix-caching"),
        AdmissionUs(block_tokens, false, false));
  }
  return EndAnswer("scheduler_core_bench", 0);
}

}  // namespace
}  // namespace fathom::scheduler

int main() { return fathom::scheduler::Main(); }
