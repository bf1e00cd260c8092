#include "cluster/leader_link.h"

#include <algorithm>

namespace fathom {

void LeaderLink::Dialled(TimeUs now) {
  open_ = true;
  heard_us_ = now;
  greeted_ = beats_ = leads_ = false;
}

void LeaderLink::Ended(TimeUs now) {
  open_ = greeted_ = beats_ = leads_ = false;
  redial_us_ = std::clamp(redial_us_ * 2, options_.redial_us_min, options_.redial_us_max);
  jitter_ = jitter_ * 6364136223846793005u + 1442695040888963407u;
  const auto early = static_cast<int64_t>(jitter_ >> 33) % (redial_us_ / 4 + 1);
  next_dial_us_ = now + redial_us_ - early;
}

void LeaderLink::Heard(bool beat, TimeUs now) {
  heard_us_ = now;
  beats_ = beats_ || beat;
}

void LeaderLink::HeardHello(bool leads, TimeUs now) {
  heard_us_ = now;
  greeted_ = true;
  leads_ = leads;
  redial_us_ = 0;
}

bool LeaderLink::Silent(TimeUs now) const {
  if (!open_) return false;
  if (!greeted_) return now - heard_us_ > options_.hello_us;
  return beats_ && now - heard_us_ > options_.silence_us;
}

absl::Status CheckSchedulerHello(const Hello& hello) {
  if (!hello.scheduler) {
    return FailedPrecondition(
        "a peer of role {} (build {}) answered where a scheduler was dialled; see what "
        "--scheduler names",
        static_cast<int>(hello.role), hello.build);
  }
  if (!SpeaksProtocol(hello)) {
    return FailedPrecondition(
        "scheduler {} speaks protocols {} to {}, this process {} to {}; update the older one",
        hello.build, hello.protocol_min, hello.protocol_max, kProtocolMin, kProtocolMax);
  }
  return absl::OkStatus();
}

}  // namespace fathom
