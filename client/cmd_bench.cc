#include <fmt/format.h>

#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "client/bench_stats.h"
#include "client/commands.h"
#include "client/progress_bar.h"
#include "common/clock.h"

namespace fathom::client {
namespace {

struct Load {
  std::string kind;  // "latency" or "throughput".
  int32_t requests = 0;
  int32_t concurrency = 0;
  int32_t warmup = 0;
  int32_t input_len = 0;
  int32_t output_len = 0;
  int64_t seed = 1;
};

// The same prompts for the same seed. Greedy, so that the same load is the same work.
GenerateRequest RandomRequest(const Load& load, int32_t vocab, int32_t index) {
  std::seed_seq words{static_cast<uint32_t>(load.seed), static_cast<uint32_t>(index)};
  std::mt19937_64 random(words);
  std::vector<TokenId> ids;
  for (int32_t i = 0; i < load.input_len; ++i) {
    ids.push_back(static_cast<TokenId>(random() % static_cast<uint64_t>(vocab)));
  }
  GenerateRequest request;
  request.prompt = std::move(ids);
  request.sampling.temperature = 0.0f;
  request.stop.max_tokens = load.output_len;
  request.stop.ignore_eos = true;
  request.output.text = false;
  return request;
}

absl::StatusOr<RequestTrace> Trace(Client& client, const GenerateRequest& request,
                                   const Clock& clock, ProgressBar* bar) {
  RequestTrace trace;
  trace.sent_us = clock.Now();
  FATHOM_ASSIGN_OR_RETURN(const Answer answer, client.Generate(request, [&](const Event& event) {
    if (const auto* tokens = std::get_if<Tokens>(&event); tokens && !tokens->ids.empty()) {
      trace.frames.push_back({clock.Now(), static_cast<int32_t>(tokens->ids.size())});
      bar->Add(static_cast<int64_t>(tokens->ids.size()));
    }
    return true;
  }));
  trace.end_us = clock.Now();
  trace.prompt_tokens = answer.started.prompt_tokens;
  return trace;
}

// Closed loop: `concurrency` requests under way until all are done. The first error ends it.
absl::StatusOr<BenchSummary> Measure(Client& client, const Load& load, int32_t vocab) {
  const RealClock clock;
  {
    ProgressBar none(1, "");
    for (int32_t i = 0; i < load.warmup; ++i) {
      FATHOM_RETURN_IF_ERROR(
          Trace(client, RandomRequest(load, vocab, -1 - i), clock, &none).status());
    }
  }
  std::vector<RequestTrace> traces;
  absl::Status failure;
  std::mutex mutex;  // Guards traces and failure.
  std::atomic<int32_t> next = 0;
  const TimeUs begin_us = clock.Now();
  {
    ProgressBar bar(int64_t{load.requests} * load.output_len, "tokens");
    std::vector<std::jthread> threads;
    for (int32_t t = 0; t < load.concurrency; ++t) {
      threads.emplace_back([&] {
        for (int32_t i = next++; i < load.requests; i = next++) {
          auto trace = Trace(client, RandomRequest(load, vocab, i), clock, &bar);
          std::lock_guard lock(mutex);
          if (!trace.ok()) {
            failure = trace.status();
            next = load.requests;
            return;
          }
          traces.push_back(*std::move(trace));
        }
      });
    }
  }
  if (!failure.ok()) return failure;
  return Summarize(traces, clock.Now() - begin_us);
}

nlohmann::ordered_json Json(const Distribution& d) {
  return {{"mean", d.mean}, {"median", d.median}, {"p90", d.p90}, {"p99", d.p99}, {"max", d.max}};
}

void PrintJson(const Load& load, const Model& model, const BenchSummary& s) {
  const nlohmann::ordered_json all = {{"bench", load.kind},
                                      {"model", model.name},
                                      {"fingerprint", model.fingerprint},
                                      {"input_len", load.input_len},
                                      {"output_len", load.output_len},
                                      {"concurrency", load.concurrency},
                                      {"requests", s.requests},
                                      {"wall_s", s.wall_s},
                                      {"prompt_tokens", s.prompt_tokens},
                                      {"output_tokens", s.output_tokens},
                                      {"requests_per_s", s.requests_per_s},
                                      {"output_tokens_per_s", s.output_tokens_per_s},
                                      {"total_tokens_per_s", s.total_tokens_per_s},
                                      {"ttft_ms", Json(s.ttft_ms)},
                                      {"tpot_ms", Json(s.tpot_ms)},
                                      {"itl_ms", Json(s.itl_ms)},
                                      {"e2e_ms", Json(s.e2e_ms)}};
  fmt::print("{}\n", all.dump());
}

}  // namespace

int RunBench(int argc, const char* const* argv) {
  const std::string kind = argc > 1 ? argv[1] : "";
  const bool help = kind == "--help" || kind == "-h";
  if (kind != "latency" && kind != "throughput" && !help) {
    return Fail("bench", Invalid("{}; give latency or throughput, e.g. fathom bench latency",
                                 kind.empty() ? "what to measure is missing"
                                              : fmt::format("'{}' is not known", kind)));
  }
  const bool latency = kind != "throughput";
  Load load{.kind = kind,
            .requests = latency ? 10 : 128,
            .concurrency = latency ? 1 : 16,
            .warmup = 1,
            .input_len = 128,
            .output_len = 128};
  Flags flags(
      "fathom bench " + (help ? "{latency,throughput}" : kind),
      "Measures a running cluster with random prompts; TTFT, TPOT, ITL and tokens per second.");
  ServerFlag server;
  bool json = false;
  flags.Group("Load");
  flags.Add("--requests,--num-prompts", &load.requests, 1, 1'000'000, "How many are measured");
  flags.Add("--concurrency,--max-concurrency", &load.concurrency, 1, 1024, "How many at once");
  flags.Add("--warmup", &load.warmup, 0, 1000, "Requests before, not measured");
  flags.Add("--input-len", &load.input_len, 1, 1 << 20, "Tokens of each prompt");
  flags.Add("--output-len", &load.output_len, 1, 1 << 20, "Tokens of each answer");
  flags.Add("--seed", &load.seed, 0, INT64_MAX, "Of the prompts");
  server.Add(flags);
  flags.Group("Output");
  flags.Add("--json", &json, "Print one JSON object");
  if (const auto code = flags.Parse(argc - (help ? 0 : 1), argv + (help ? 0 : 1))) return *code;

  const auto client = server.Dial();
  const auto model = client->GetModel();
  if (!model.ok()) return Fail("bench", model.status());
  const auto summary = Measure(*client, load, model->vocab);
  if (!summary.ok()) return Fail("bench", summary.status());
  if (json) {
    PrintJson(load, *model, *summary);
  } else {
    fmt::print("{}: {} tokens in, {} out, {} at once\n{}", load.kind, load.input_len,
               load.output_len, load.concurrency, SummaryText(*summary));
  }
  return kExitOk;
}

}  // namespace fathom::client
