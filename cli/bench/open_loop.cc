#include "cli/bench/open_loop.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cli/progress_bar.h"
#include "common/process.h"

namespace fathom::client {
namespace {

void WaitUntil(TimeUs due_us, const Clock& clock) {
  // The last part of a long wait is taken up again, because the system may wake us early or late.
  for (TimeUs now_us = clock.Now(); now_us < due_us; now_us = clock.Now()) {
    std::this_thread::sleep_for(std::chrono::microseconds(due_us - now_us));
  }
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class OpenLoop {
 public:
  OpenLoop(Client& client, const Workload& workload, int32_t vocab, const OpenLoopOptions& options,
           const Clock& clock)
      : client_(client),
        workload_(workload),
        vocab_(vocab),
        options_(options),
        clock_(clock),
        bar_(workload.requests, "requests") {
    for (int32_t i = 0; i < options.in_flight_max; ++i) free_.push_back(static_cast<size_t>(i));
  }

  RoundResult Run(const std::vector<double>& times) {
    const double cpu_s = CpuSeconds();
    // A moment later, so that the first sessions are not late.
    const TimeUs begin_us = clock_.Now() + 10'000;
    {
      // A thread that has ended keeps its stack until it is joined, so each place has one thread.
      std::vector<std::jthread> threads(free_.size());
      for (size_t i = 0; i < times.size(); ++i) {
        const TimeUs due_us = begin_us + static_cast<TimeUs>(times[i] * 1e6);
        WaitUntil(due_us, clock_);
        const size_t place = TakePlace();
        threads[place] = std::jthread([this, i, due_us, place] {
          Session(static_cast<int32_t>(i), due_us);
          FreePlace(place);
        });
      }
    }
    result_.wall_us = clock_.Now() - begin_us;
    result_.client_cpus = (CpuSeconds() - cpu_s) * 1e6 / static_cast<double>(result_.wall_us);
    return std::move(result_);
  }

 private:
  size_t TakePlace() {
    std::unique_lock lock(free_mutex_);
    freed_.wait(lock, [this] { return !free_.empty(); });
    const size_t place = free_.back();
    free_.pop_back();
    return place;
  }
  void FreePlace(size_t place) {
    {
      const std::lock_guard lock(free_mutex_);
      free_.push_back(place);
    }
    freed_.notify_one();
  }

  void Session(int32_t index, TimeUs due_us) {
    const SessionPlan& plan = workload_.sessions[static_cast<size_t>(index)];
    std::vector<TokenId> ids =
        PrefixTokens(options_.seed, options_.round, plan.prefix, plan.prefix_tokens, vocab_);
    for (size_t turn = 0; turn < plan.turns.size(); ++turn) {
      const TurnPlan& one = plan.turns[turn];
      const auto added = TurnTokens(options_.seed, options_.round, index,
                                    static_cast<int32_t>(turn), one.new_tokens, vocab_);
      ids.insert(ids.end(), added.begin(), added.end());
      if (turn > 0) {
        due_us = clock_.Now() + static_cast<TimeUs>(one.pause_s * 1e6);
        WaitUntil(due_us, clock_);
      }
      if (!Turn(due_us, one.output_tokens, &ids)) return;  // The later turns need this answer.
    }
  }

  // Sends one request, whose answer is appended to `ids`. Returns false if it failed.
  bool Turn(TimeUs due_us, int32_t output_tokens, std::vector<TokenId>* ids) {
    GenerateRequest request;
    request.prompt = *ids;
    request.sampling.temperature = 0.0f;
    request.stop.max_tokens = output_tokens;
    request.stop.ignore_eos = true;
    request.output.text = false;
    request.cache_salt = salt_;
    RequestTrace trace{.sent_us = due_us};
    const TimeUs sent_us = clock_.Now();
    const auto answer = client_.Generate(request, [&](const Event& event) {
      if (const auto* tokens = std::get_if<Tokens>(&event); tokens && !tokens->ids.empty()) {
        trace.frames.push_back({clock_.Now(), static_cast<int32_t>(tokens->ids.size())});
      }
      return true;
    });
    trace.end_us = clock_.Now();
    bar_.Add(1);
    const std::lock_guard lock(mutex_);
    result_.late_us_max = std::max(result_.late_us_max, sent_us - due_us);
    if (!answer.ok()) {
      ++result_.failed;
      if (result_.first_error.empty()) {
        result_.first_error = std::string(Message(answer.status()));
      }
      return false;
    }
    trace.prompt_tokens = answer->started.prompt_tokens;
    result_.cached_tokens += answer->started.cached_tokens;
    result_.requests.push_back(std::move(trace));
    const std::vector<TokenId>& output = answer->sequences.at(0).ids;
    ids->insert(ids->end(), output.begin(), output.end());
    return true;
  }

  Client& client_;
  const Workload& workload_;
  const int32_t vocab_;
  const OpenLoopOptions& options_;
  const Clock& clock_;
  std::mutex free_mutex_;
  std::condition_variable freed_;
  std::vector<size_t> free_;  // Places without a session; guarded by free_mutex_.
  ProgressBar bar_;
  std::mutex mutex_;  // Guards result_ while threads run.
  // A round finds in the prefix cache only what it sent itself, so that it can be repeated.
  const std::string salt_ = "bench-" + RandomId();
  RoundResult result_;
};

}  // namespace

RoundResult RunOpenLoop(Client& client, const Workload& workload, const std::vector<double>& times,
                        int32_t vocab, const OpenLoopOptions& options, const Clock& clock) {
  return OpenLoop(client, workload, vocab, options, clock).Run(times);
}

}  // namespace fathom::client
