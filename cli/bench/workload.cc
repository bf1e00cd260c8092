#include "cli/bench/workload.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

namespace fathom::client {
namespace {

constexpr double kBurstShape = 0.25;
constexpr int32_t kSharePrefixes = 4, kSharePrefixTokens = 1024;
constexpr int32_t kAgentTurns = 6, kAgentTokens = 768;
constexpr double kAgentPauseS = 0.5;

// The standard's engines have fixed formulas, its distributions do not; so these are our own.
class Draws {
 public:
  Draws(uint64_t seed, uint32_t what, uint32_t index = 0, uint32_t part = 0) {
    std::seed_seq words{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), what, index,
                        part};
    random_.seed(words);
  }
  uint64_t Word() { return random_(); }
  // In (0, 1).
  double Uniform() { return (static_cast<double>(random_() >> 11) + 0.5) * 0x1p-53; }
  int32_t Integer(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random_() % static_cast<uint64_t>(high - low + 1));
  }
  double Exponential() { return -std::log(Uniform()); }
  double Normal() {
    const double radius = std::sqrt(2 * Exponential());
    return radius * std::cos(2 * std::numbers::pi * Uniform());
  }
  // Of mean `shape`, by Marsaglia and Tsang (2000); a shape below 1 by one above and a power.
  double Gamma(double shape) {
    if (shape < 1) return Gamma(shape + 1) * std::pow(Uniform(), 1 / shape);
    const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    while (true) {
      const double x = Normal(), v = std::pow(1 + c * x, 3);
      if (v > 0 && std::log(Uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
    }
  }
  int32_t LogNormal(double median, double sigma, int32_t low, int32_t high) {
    const double value = median * std::exp(sigma * Normal());
    return static_cast<int32_t>(std::clamp<double>(std::round(value), low, high));
  }

 private:
  std::mt19937_64 random_;
};

enum Stream : uint32_t { kArrivalStream, kLengthStream, kPrefixStream, kTurnStream };

SessionPlan DrawSession(const WorkloadOptions& options, int32_t index) {
  Draws draws(options.seed, kLengthStream, static_cast<uint32_t>(index));
  if (options.name == "long") return {.turns = {{8192, 1024}}};
  if (options.name == "fixed") return {.turns = {{options.input_len, options.output_len}}};
  if (options.name == "prefix") {
    return {.prefix = draws.Integer(0, kSharePrefixes - 1),
            .prefix_tokens = kSharePrefixTokens,
            .turns = {{draws.Integer(64, 192), draws.Integer(64, 192)}}};
  }
  if (options.name == "agent") {
    SessionPlan session{.prefix = 0, .prefix_tokens = kAgentTokens};
    for (int32_t turn = 0; turn < kAgentTurns; ++turn) {
      const int32_t new_tokens = draws.Integer(40, 200), output = draws.Integer(30, 150);
      const double pause_s = turn == 0 ? 0 : kAgentPauseS * draws.Exponential();
      session.turns.push_back({new_tokens, output, pause_s});
    }
    return session;
  }
  const int32_t input = draws.LogNormal(119, 1.2, 4, 1024);  // sharegpt
  return {.turns = {{input, draws.LogNormal(113, 1.0, 4, 1024)}}};
}

int32_t Scaled(int32_t tokens, double scale) {
  return std::max(1, static_cast<int32_t>(std::lround(tokens * scale)));
}

// Scales the session and cuts it to the context. Returns the number of turns that changed by that.
int32_t Fit(const WorkloadOptions& options, SessionPlan* session) {
  int32_t shortened = 0;
  if (session->prefix_tokens > 0) {
    session->prefix_tokens = Scaled(session->prefix_tokens, options.scale);
  }
  int64_t used = session->prefix_tokens;  // Tokens before the turn's own.
  const int64_t context = options.context_tokens;
  for (size_t i = 0; i < session->turns.size(); ++i) {
    TurnPlan& turn = session->turns[i];
    turn.new_tokens = Scaled(turn.new_tokens, options.scale);
    turn.output_tokens = Scaled(turn.output_tokens, options.scale);
    if (used + turn.new_tokens + turn.output_tokens <= context) {
      used += turn.new_tokens + turn.output_tokens;
      continue;
    }
    if (i > 0) {  // A later turn ends the session.
      shortened += static_cast<int32_t>(session->turns.size() - i);
      session->turns.resize(i);
      break;
    }
    ++shortened;
    turn.output_tokens = static_cast<int32_t>(
        std::clamp<int64_t>(turn.output_tokens, 1, std::max<int64_t>(context / 4, 1)));
    const int64_t input_max = std::max<int64_t>(context - turn.output_tokens, 1);
    session->prefix_tokens =
        static_cast<int32_t>(std::min<int64_t>(session->prefix_tokens, input_max - 1));
    turn.new_tokens = static_cast<int32_t>(
        std::min<int64_t>(turn.new_tokens, input_max - session->prefix_tokens));
    used = session->prefix_tokens + turn.new_tokens + turn.output_tokens;
  }
  return shortened;
}

std::vector<TokenId> DrawTokens(Draws draws, int32_t count, int32_t vocab) {
  std::vector<TokenId> ids;
  ids.reserve(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<TokenId>(draws.Word() % static_cast<uint64_t>(vocab)));
  }
  return ids;
}

}  // namespace

std::vector<double> ArrivalTimes(Arrivals arrivals, double rate, int32_t count, uint64_t seed) {
  Draws draws(seed, kArrivalStream);
  std::vector<double> times;
  double now_s = 0;
  for (int32_t i = 0; i < count; ++i) {
    times.push_back(now_s);
    switch (arrivals) {
      case Arrivals::kPoisson:
        now_s += draws.Exponential() / rate;
        break;
      case Arrivals::kBursty:
        now_s += draws.Gamma(kBurstShape) / kBurstShape / rate;
        break;
      case Arrivals::kEven:
        now_s += 1 / rate;
    }
  }
  // Exactly the rate, also for few arrivals.
  const double stretch = times.back() > 0 ? (count - 1) / rate / times.back() : 1;
  for (double& time : times) time *= stretch;
  return times;
}

Workload MakeWorkload(const WorkloadOptions& options, int32_t requests) {
  Workload workload;
  for (int32_t index = 0; workload.requests < requests; ++index) {
    SessionPlan session = DrawSession(options, index);
    workload.shortened += Fit(options, &session);
    workload.requests += static_cast<int32_t>(session.turns.size());
    workload.sessions.push_back(std::move(session));
  }
  return workload;
}

std::vector<TokenId> PrefixTokens(uint64_t seed, int32_t round, int32_t prefix, int32_t count,
                                  int32_t vocab) {
  return DrawTokens(
      Draws(seed, kPrefixStream + 16 * static_cast<uint32_t>(round), static_cast<uint32_t>(prefix)),
      count, vocab);
}

std::vector<TokenId> TurnTokens(uint64_t seed, int32_t round, int32_t session, int32_t turn,
                                int32_t count, int32_t vocab) {
  return DrawTokens(Draws(seed, kTurnStream + 16 * static_cast<uint32_t>(round),
                          static_cast<uint32_t>(session), static_cast<uint32_t>(turn)),
                    count, vocab);
}

}  // namespace fathom::client
