#include "scheduler/core/wait_queue.h"

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace fathom::scheduler {

namespace {

// No fingerprint has a blank.
std::string LaneOfModel(const std::string& model) { return "model " + model; }

}  // namespace

void WaitQueue::Push(Sequence& sequence, OrderKey order, const Kind& kind, bool first_time,
                     TimeUs now) {
  FATHOM_CHECK(sequence.suspended(), "sequence {} is elsewhere", sequence.number);
  Lane& lane = lanes_[kind.fingerprint];
  if (lane.model.empty()) lane.model = kind.model;
  if (lane.groups == 0 && lane.entries.empty() && lane.give_up_us == 0) {
    lane.give_up_us = now + wait_us_;
  }
  lane.entries.emplace(order, &sequence);
  sequence.state = WaitingState{kind.fingerprint, lane.model, order, first_time};
  Count(sequence, first_time, 1);
  if (lane.model.empty()) return;
  ++models_[lane.model].waiting;
  SetEnds(now);
}

void WaitQueue::Erase(Sequence& sequence) {
  const auto* waiting = std::get_if<WaitingState>(&sequence.state);
  FATHOM_CHECK(waiting != nullptr, "sequence {} does not wait", sequence.number);
  auto lane = lanes_.find(waiting->lane);
  FATHOM_CHECK(lane != lanes_.end() && lane->second.entries.erase({waiting->order, &sequence}) == 1,
               "sequence {} is not in its lane", sequence.number);
  if (lane->second.entries.empty() && lane->second.groups == 0) lanes_.erase(lane);
  Count(sequence, waiting->first_time, -1);
  if (!waiting->model.empty()) {
    --models_[waiting->model].waiting;
    Forget(waiting->model);
  }
  sequence.state = SuspendedState{};
}

void WaitQueue::Forget(const std::string& model) {
  const auto it = models_.find(model);
  if (it != models_.end() && it->second.groups == 0 && it->second.waiting == 0) models_.erase(it);
}

void WaitQueue::SetEnds(TimeUs now) {
  for (auto& [name, model] : models_) {
    const bool replaced = model.groups == 0 && groups_ > 0;
    if (!replaced) {
      model.end_us = 0;
    } else if (model.end_us == 0) {
      model.end_us = now + wait_us_;
    }
  }
}

void WaitQueue::Count(const Sequence& sequence, bool first_time, int32_t sign) {
  size_ += sign;
  if (!first_time) return;
  first_time_requests_ += sign;
  first_time_tokens_ += sign * sequence.session->prompt_tokens();
}

Sequence* WaitQueue::First(const Kind& kind,
                           const std::function<bool(const Sequence&)>& accepts) const {
  static const Entries kNone;
  auto entries = [&](const std::string& name) -> const Entries& {
    auto lane = lanes_.find(name);
    return lane == lanes_.end() ? kNone : lane->second.entries;
  };
  const Entries* from[] = {&entries(""),
                           kind.fingerprint.empty() ? &kNone : &entries(kind.fingerprint),
                           &entries(LaneOfModel(kind.model))};
  Entries::const_iterator next[] = {from[0]->begin(), from[1]->begin(), from[2]->begin()};
  while (true) {
    int best = -1;
    for (int i = 0; i < 3; ++i) {
      if (next[i] == from[i]->end()) continue;
      if (best < 0 || next[i]->first < next[best]->first) best = i;
    }
    if (best < 0) return nullptr;
    Sequence* sequence = (next[best]++)->second;
    if (accepts(*sequence)) return sequence;
  }
}

void WaitQueue::GroupUp(const Kind& kind, TimeUs now) {
  Lane& lane = lanes_[kind.fingerprint];
  lane.model = kind.model;
  ++lane.groups;
  lane.give_up_us = 0;
  ++models_[kind.model].groups;
  ++groups_;
  SetEnds(now);
}

void WaitQueue::GroupDown(const Kind& kind, TimeUs now) {
  auto lane = lanes_.find(kind.fingerprint);
  FATHOM_CHECK(lane != lanes_.end() && lane->second.groups > 0, "no group of {}", kind.fingerprint);
  --models_[kind.model].groups;
  --groups_;
  if (--lane->second.groups == 0) {
    lane->second.give_up_us = now + wait_us_;
    if (lane->second.entries.empty()) lanes_.erase(lane);
  }
  Forget(kind.model);
  SetEnds(now);
}

std::vector<Sequence*> WaitQueue::Expire(TimeUs now) {
  std::map<std::string, Entries> moved;  // By model.
  for (auto lane = lanes_.begin(); lane != lanes_.end();) {
    const bool give_up = !lane->second.model.empty() && lane->second.give_up_us != 0 &&
                         lane->second.give_up_us <= now;
    if (give_up) moved[lane->second.model].merge(lane->second.entries);
    lane = give_up ? lanes_.erase(lane) : std::next(lane);
  }
  for (auto& [model, entries] : moved) {
    if (entries.empty()) continue;
    const std::string name = LaneOfModel(model);
    for (const auto& [order, sequence] : entries) {
      std::get<WaitingState>(sequence->state).lane = name;
    }
    Lane& lane = lanes_[name];
    lane.model = model;
    lane.entries.merge(entries);
  }
  std::vector<Sequence*> over;
  ForEach([&](Sequence& sequence) {
    const auto model = models_.find(std::get<WaitingState>(sequence.state).model);
    if (model == models_.end() || model->second.end_us == 0 || model->second.end_us > now) return;
    over.push_back(&sequence);
  });
  return over;
}

TimeUs WaitQueue::NextTimeUs() const {
  TimeUs next = std::numeric_limits<TimeUs>::max();
  for (const auto& [name, lane] : lanes_) {
    if (!lane.model.empty() && lane.give_up_us != 0) next = std::min(next, lane.give_up_us);
  }
  for (const auto& [name, model] : models_) {
    if (model.waiting > 0 && model.end_us != 0) next = std::min(next, model.end_us);
  }
  return next;
}

void WaitQueue::ForEach(const std::function<void(Sequence&)>& visit) const {
  for (const auto& [name, lane] : lanes_) {
    for (const auto& [order, sequence] : lane.entries) visit(*sequence);
  }
}

}  // namespace fathom::scheduler
