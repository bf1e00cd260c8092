#include "scheduler/core/wait_queue.h"

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace fathom::scheduler {

void WaitQueue::Push(Sequence& sequence, OrderKey order, const std::string& fingerprint,
                     bool first_time, TimeUs now) {
  FATHOM_CHECK(sequence.suspended(), "sequence {} is elsewhere", sequence.number);
  Lane& lane = lanes_[fingerprint];
  if (lane.groups == 0 && lane.entries.empty() && lane.give_up_us == 0) {
    lane.give_up_us = now + kFingerprintWaitUs;
  }
  lane.entries.emplace(order, &sequence);
  sequence.state = WaitingState{fingerprint, order, first_time};
  Count(sequence, first_time, 1);
}

void WaitQueue::Erase(Sequence& sequence) {
  const auto* waiting = std::get_if<WaitingState>(&sequence.state);
  FATHOM_CHECK(waiting != nullptr, "sequence {} does not wait", sequence.number);
  auto lane = lanes_.find(waiting->lane);
  FATHOM_CHECK(lane != lanes_.end() && lane->second.entries.erase({waiting->order, &sequence}) == 1,
               "sequence {} is not in its lane", sequence.number);
  if (lane->second.entries.empty() && lane->second.groups == 0) lanes_.erase(lane);
  Count(sequence, waiting->first_time, -1);
  sequence.state = SuspendedState{};
}

void WaitQueue::Count(const Sequence& sequence, bool first_time, int32_t sign) {
  size_ += sign;
  if (!first_time) return;
  first_time_requests_ += sign;
  first_time_tokens_ += sign * sequence.session->prompt_tokens();
}

Sequence* WaitQueue::First(const std::string& fingerprint,
                           const std::function<bool(const Sequence&)>& accepts) const {
  static const Entries kNone;
  auto entries = [&](const std::string& name) -> const Entries& {
    auto lane = lanes_.find(name);
    return lane == lanes_.end() ? kNone : lane->second.entries;
  };
  const Entries& any = entries("");
  const Entries& own = fingerprint.empty() ? kNone : entries(fingerprint);
  for (auto a = any.begin(), b = own.begin(); a != any.end() || b != own.end();) {
    const bool take_any = b == own.end() || (a != any.end() && a->first < b->first);
    Sequence* sequence = take_any ? (a++)->second : (b++)->second;
    if (accepts(*sequence)) return sequence;
  }
  return nullptr;
}

void WaitQueue::GroupUp(const std::string& fingerprint) {
  Lane& lane = lanes_[fingerprint];
  ++lane.groups;
  lane.give_up_us = 0;
}

void WaitQueue::GroupDown(const std::string& fingerprint, TimeUs now) {
  auto lane = lanes_.find(fingerprint);
  FATHOM_CHECK(lane != lanes_.end() && lane->second.groups > 0, "no group of {}", fingerprint);
  if (--lane->second.groups > 0) return;
  lane->second.give_up_us = now + kFingerprintWaitUs;
  if (lane->second.entries.empty()) lanes_.erase(lane);
}

void WaitQueue::Expire(TimeUs now) {
  Entries moved;
  for (auto lane = lanes_.begin(); lane != lanes_.end();) {
    const bool give_up =
        !lane->first.empty() && lane->second.give_up_us != 0 && lane->second.give_up_us <= now;
    if (give_up) moved.merge(lane->second.entries);
    lane = give_up ? lanes_.erase(lane) : std::next(lane);
  }
  if (moved.empty()) return;
  for (const auto& [order, sequence] : moved) std::get<WaitingState>(sequence->state).lane.clear();
  lanes_[""].entries.merge(moved);
}

TimeUs WaitQueue::NextTimeUs() const {
  TimeUs next = std::numeric_limits<TimeUs>::max();
  for (const auto& [name, lane] : lanes_) {
    if (!name.empty() && lane.give_up_us != 0) next = std::min(next, lane.give_up_us);
  }
  return next;
}

void WaitQueue::ForEach(const std::function<void(Sequence&)>& visit) const {
  for (const auto& [name, lane] : lanes_) {
    for (const auto& [order, sequence] : lane.entries) visit(*sequence);
  }
}

absl::Status WaitQueue::Check() const {
  int32_t size = 0, first_time = 0;
  int64_t tokens = 0;
  for (const auto& [name, lane] : lanes_) {
    for (const auto& [order, sequence] : lane.entries) {
      const auto* waiting = std::get_if<WaitingState>(&sequence->state);
      if (waiting == nullptr || waiting->lane != name || waiting->order != order) {
        return Internal("sequence {} is in lane '{}' and does not know it", sequence->number, name);
      }
      ++size;
      first_time += waiting->first_time ? 1 : 0;
      tokens += waiting->first_time ? sequence->session->prompt_tokens() : 0;
    }
  }
  if (size != size_ || first_time != first_time_requests_ || tokens != first_time_tokens_) {
    return Internal("the queue counts {} ({} new, {} tokens), holds {} ({}, {})", size_,
                    first_time_requests_, first_time_tokens_, size, first_time, tokens);
  }
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
