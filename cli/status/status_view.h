// cli/status/status_view.h: the screen of `fathom status --watch`, from two readings of a cluster.
// Pure.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/types.h"

namespace fathom::client {

// One look at a cluster.
struct ClusterReading {
  TimeUs at_us = 0;
  std::optional<ClusterStatus> status;  // Absent: no router answered.
  std::string error;                    // Why not.
  // From the scheduler's /metrics; absent or empty if it was not reached, or lacks them.
  std::optional<double> prompt_tokens, generated_tokens;  // Counters.
  std::map<std::string, double> waiting_by_reason;
  std::string metrics_error;  // Why there are none.
};

// What changed between two readings; absent values are unknown.
struct Rates {
  std::optional<double> generated_per_s, prompt_per_s, steps_per_s;
};
// `before` is an earlier reading of the same cluster. A counter that fell (a restarted scheduler)
// gives no rate.
Rates RatesOf(const ClusterReading& before, const ClusterReading& now);

// The losses that were seen, newest first.
class LossList {
 public:
  // `clock` is the time of day, for people. A loss that is the last known one is not added again.
  void See(const std::string& loss, const std::string& clock);
  struct Loss {
    std::string clock, text;
  };
  const std::deque<Loss>& losses() const { return losses_; }

 private:
  std::deque<Loss> losses_;
};

// At most `height` lines of at most `width` bytes, without line ends. Control characters of the
// cluster's texts are left out. `before` may be null (the first reading).
std::vector<std::string> StatusLines(const ClusterReading& now, const ClusterReading* before,
                                     const LossList& losses, size_t width, size_t height);

}  // namespace fathom::client
