#include "cli/bench/bench_load.h"

#include <algorithm>
#include <atomic>
#include <latch>
#include <mutex>
#include <random>
#include <thread>

#include "cli/progress_bar.h"

namespace fathom::client {
namespace {

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

}  // namespace

GenerateRequest RandomRequest(const Load& load, int32_t vocab, int32_t index) {
  std::seed_seq words{static_cast<uint32_t>(load.seed), static_cast<uint32_t>(load.round),
                      static_cast<uint32_t>(index)};
  std::mt19937_64 random(words);
  std::vector<TokenId> ids;
  ids.reserve(load.input_len);
  for (int32_t i = 0; i < load.input_len; ++i) {
    ids.push_back(static_cast<TokenId>(random() % static_cast<uint64_t>(vocab)));
  }
  GenerateRequest request;
  request.prompt = std::move(ids);
  request.sampling.temperature = 0.0f;
  request.stop.max_tokens = load.output_len;
  request.stop.ignore_eos = true;
  request.output.text = false;
  request.cache_enabled = false;  // The same run again measures the same work.
  return request;
}

absl::StatusOr<LoadTrace> RunLoad(Client& client, const Load& load, int32_t vocab,
                                  const Clock& clock, const char* label) {
  std::vector<GenerateRequest> requests;
  requests.reserve(load.requests);
  for (int32_t i = 0; i < load.requests; ++i) requests.push_back(RandomRequest(load, vocab, i));
  LoadTrace all;
  absl::Status failure;
  std::mutex mutex;  // Guards all.requests and failure.
  std::atomic<int32_t> next = 0;
  std::latch ready(load.concurrency);  // The measured time excludes the start of threads.
  {
    ProgressBar bar(int64_t{load.requests} * load.output_len, label);
    std::vector<std::jthread> threads;
    threads.reserve(load.concurrency);
    for (int32_t t = 0; t < load.concurrency; ++t) {
      threads.emplace_back([&] {
        ready.arrive_and_wait();
        for (int32_t i = next++; i < load.requests; i = next++) {
          auto trace = Trace(client, requests[i], clock, &bar);
          std::lock_guard lock(mutex);
          if (!trace.ok()) {
            failure = trace.status();
            next = load.requests;
            return;
          }
          all.requests.push_back(*std::move(trace));
        }
      });
    }
  }
  if (!failure.ok()) return failure;
  TimeUs begin_us = INT64_MAX;
  TimeUs end_us = 0;
  for (const RequestTrace& trace : all.requests) {
    begin_us = std::min(begin_us, trace.sent_us);
    end_us = std::max(end_us, trace.end_us);
  }
  all.wall_us = end_us - begin_us;
  return all;
}

}  // namespace fathom::client
