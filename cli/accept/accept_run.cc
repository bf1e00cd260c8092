#include "cli/accept/accept_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/bench/bench_load.h"
#include "cli/commands.h"
#include "cli/progress_bar.h"
#include "http/client.h"

namespace fathom::client {
namespace {

constexpr int64_t kAcceptDeadlineMs = 5000;
constexpr int32_t kEqualRequests = 4;  // Of each equality.
constexpr int32_t kEqualOthers = 12;   // In the batch with them.
constexpr int32_t kEqualTokens = 24;
constexpr int64_t kBlocksFreeUs = 5'000'000;
constexpr int32_t kCancelEach = 8;  // Of the stress requests, every eighth is cancelled.

ProcessVersion AskVersion(const std::string& address, bool required, const http::CallLimits& call) {
  ProcessVersion process{.address = address, .required = required};
  auto reply = http::GetAt(address, "/version", call);
  // Only the router speaks TLS on its HTTP port.
  http::CallLimits plain = call;
  plain.tls = false;
  plain.api_key.clear();
  if (!reply.ok() && call.tls) reply = http::GetAt(address, "/version", plain);
  if (!reply.ok()) {
    process.error = std::string(Message(reply.status()));
    return process;
  }
  const auto json = nlohmann::json::parse(reply->body, nullptr, /*allow_exceptions=*/false);
  if (reply->status != 200 || !json.is_object()) {
    process.error = fmt::format("no /version (HTTP {})", reply->status);
    return process;
  }
  const auto text = [&](const char* key) {
    const auto it = json.find(key);
    return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  process.role = text("role");
  process.version = text("version");
  process.commit = text("commit");
  return process;
}

// Request `index` of a set that only depends on the seed; `sampled`: with a temperature and a seed.
GenerateRequest EqualityRequest(const AcceptOptions& options, int32_t vocab, int32_t index,
                                bool sampled) {
  const int32_t length = std::max(1, std::min(options.input_len, 9 + 13 * (index % 6)));
  GenerateRequest request = RandomRequest(
      {.input_len = length, .output_len = kEqualTokens, .seed = options.seed, .round = 1}, vocab,
      index);
  request.output.logprobs = 2;
  if (sampled) {
    request.sampling.temperature = 0.9f;
    request.sampling.top_p = 0.95f;
    request.sampling.seed = static_cast<uint64_t>(options.seed) * 1000 + index;
  }
  return request;
}

// All at once; answers in the order of the requests.
std::vector<absl::StatusOr<Answer>> Together(Client& client,
                                             const std::vector<GenerateRequest>& requests) {
  std::vector<absl::StatusOr<Answer>> answers(requests.size(), Unavailable("it was not sent"));
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < requests.size(); ++i) {
      threads.emplace_back([&, i] { answers[i] = client.Generate(requests[i]); });
    }
  }
  return answers;
}

// "": both have the same tokens and the same bits.
std::string Difference(const absl::StatusOr<Answer>& a, const absl::StatusOr<Answer>& b,
                       int32_t index) {
  for (const auto* answer : {&a, &b}) {
    if (!answer->ok()) return fmt::format("request {}: {}", index, Message(answer->status()));
  }
  const SequenceResult& left = a->sequences.at(0);
  const SequenceResult& right = b->sequences.at(0);
  if (left.ids != right.ids) {
    const auto at = std::ranges::mismatch(left.ids, right.ids).in1 - left.ids.begin();
    return fmt::format("request {}: token {} differs", index, at);
  }
  if (!(left.logprobs == right.logprobs)) {
    const auto at =
        std::ranges::mismatch(left.logprobs, right.logprobs).in1 - left.logprobs.begin();
    return fmt::format("request {}: the log-probability of token {} differs", index, at);
  }
  return left.text == right.text ? "" : fmt::format("request {}: the text differs", index);
}

EqualityResult Compare(const std::string& name, const std::vector<absl::StatusOr<Answer>>& a,
                       const std::vector<absl::StatusOr<Answer>>& b) {
  EqualityResult result{.name = name, .answers = kEqualRequests};
  for (int32_t i = 0; i < kEqualRequests && result.difference.empty(); ++i) {
    result.difference = Difference(a[i], b[i], i);
  }
  return result;
}

std::vector<EqualityResult> MeasureEqualities(Client& client, const AcceptOptions& options,
                                              int32_t vocab) {
  std::vector<EqualityResult> results;
  for (const bool sampled : {false, true}) {
    std::vector<GenerateRequest> requests;
    for (int32_t i = 0; i < kEqualRequests + kEqualOthers; ++i) {
      requests.push_back(EqualityRequest(options, vocab, i, sampled));
    }
    std::vector<absl::StatusOr<Answer>> alone, again;
    for (int32_t i = 0; i < kEqualRequests; ++i) alone.push_back(client.Generate(requests[i]));
    for (int32_t i = 0; i < kEqualRequests; ++i) again.push_back(client.Generate(requests[i]));
    const std::vector<absl::StatusOr<Answer>> batch = Together(client, requests);
    const std::string what = sampled ? "seeded sampling" : "greedy";
    results.push_back(Compare(what + ": twice", alone, again));
    results.push_back(Compare(what + ": alone and in a batch", alone, batch));
  }
  return results;
}

// A small batch of requests of many lengths; some of them are cancelled after their first token.
class Stress {
 public:
  Stress(Client& client, const AcceptOptions& options, int32_t vocab)
      : client_(client), options_(options), vocab_(vocab) {}

  StressResult Run() {
    result_.requests = options_.stress_requests;
    {
      ProgressBar bar(options_.stress_requests, "stress requests");
      std::vector<std::jthread> threads;
      for (int32_t t = 0; t < options_.stress_concurrency; ++t) {
        threads.emplace_back([&] {
          for (int32_t i = next_++; i < options_.stress_requests; i = next_++) {
            One(i);
            bar.Add(1);
          }
        });
      }
    }
    return result_;
  }

 private:
  void One(int32_t index) {
    const int32_t input = std::max(1, options_.input_len * (1 + index * 7 % 11) / 11);
    const int32_t output = 1 + (index * 5) % std::max(options_.output_len, 1);
    const bool cancels = index % kCancelEach == kCancelEach - 1;
    GenerateRequest request =
        RandomRequest({.input_len = input, .output_len = output, .seed = options_.seed, .round = 2},
                      vocab_, index);
    bool cut = false;
    const auto answer = client_.Generate(request, [&](const Event& event) {
      cut = cancels && std::holds_alternative<Tokens>(event);
      return !cut;
    });
    const std::lock_guard lock(mutex_);
    if (cut) {
      ++result_.cancelled;
    } else if (!answer.ok()) {
      if (result_.error.empty()) result_.error = std::string(Message(answer.status()));
    } else {
      ++result_.finished;
      result_.tokens += static_cast<int64_t>(answer->sequences.at(0).ids.size());
      result_.tokens_expected += output;
    }
  }

  Client& client_;
  const AcceptOptions& options_;
  const int32_t vocab_;
  std::atomic<int32_t> next_ = 0;
  std::mutex mutex_;  // Guards result_.
  StressResult result_;
};

// The blocks in use once they are no more than `before`, or after a while. Absent: no answer.
std::optional<int32_t> BlocksAfter(Client& client, int32_t before, const Clock& clock) {
  const TimeUs give_up_us = clock.Now() + kBlocksFreeUs;
  std::optional<int32_t> used;
  while (true) {
    if (const auto status = client.GetStatus(kAcceptDeadlineMs); status.ok()) {
      used = status->blocks_used;
      if (*used <= before) return used;
    }
    if (clock.Now() > give_up_us) return used;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace

absl::StatusOr<AcceptRun> RunAcceptance(Client& client, const AcceptOptions& options,
                                        const Clock& clock) {
  AcceptRun run{.server = options.server, .when = NowUtc()};
  FATHOM_ASSIGN_OR_RETURN(run.before, client.GetStatus(kAcceptDeadlineMs));
  if (!run.before.ready) return Unavailable("the cluster is not ready: {}", run.before.reason);
  FATHOM_ASSIGN_OR_RETURN(run.model, client.GetModel());
  for (const std::string& address : options.processes) {
    run.processes.push_back(AskVersion(address, options.processes_given, options.call));
  }
  AcceptOptions fitting = options;
  const int32_t room = std::max(run.model.context_tokens, 4);
  fitting.output_len = std::min(options.output_len, room / 2);
  fitting.input_len = std::min(options.input_len, room - fitting.output_len);
  run.input_len = fitting.input_len;
  run.output_len = fitting.output_len;
  run.concurrency = fitting.concurrency;
  // The first requests come first, without a warm-up: their latency is what a rollout costs.
  auto latency = RunLoad(client,
                         {.requests = fitting.requests,
                          .concurrency = fitting.concurrency,
                          .input_len = fitting.input_len,
                          .output_len = fitting.output_len,
                          .seed = fitting.seed},
                         run.model.vocab, clock, "tokens of the first requests");
  if (latency.ok()) {
    run.traces = std::move(latency->requests);
    run.wall_us = latency->wall_us;
    std::ranges::sort(run.traces, {}, &RequestTrace::sent_us);
  } else {
    run.latency_error = std::string(Message(latency.status()));
  }
  run.equalities = MeasureEqualities(client, fitting, run.model.vocab);
  run.stress = Stress(client, fitting, run.model.vocab).Run();
  const bool alone = run.before.requests_running == 0 && run.before.requests_waiting == 0;
  if (alone) {
    run.stress.blocks_before = run.before.blocks_used;
    run.stress.blocks_after = BlocksAfter(client, run.before.blocks_used, clock);
  }
  if (auto after = client.GetStatus(kAcceptDeadlineMs); after.ok()) {
    run.after = *std::move(after);
  } else {
    run.after.reason = std::string(Message(after.status()));
  }
  return run;
}

}  // namespace fathom::client
