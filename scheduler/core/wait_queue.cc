#include "scheduler/core/wait_queue.h"

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace fathom::scheduler {

namespace {

// The name of a model's line. No fingerprint has a blank, so the name is not that of another line.
std::string LineOfModel(const std::string& model) { return "model " + model; }

}  // namespace

void WaitQueue::Push(Sequence& sequence, OrderKey order, const Kind& kind, bool first_time,
                     TimeUs now) {
  FATHOM_CHECK(sequence.suspended(), "sequence {} is elsewhere", sequence.number);
  Line& line = lines_[kind.fingerprint];
  if (line.model.empty()) line.model = kind.model;
  if (line.groups == 0 && line.entries.empty() && line.give_up_us == 0) {
    line.give_up_us = now + wait_us_;
  }
  line.entries.emplace(order, &sequence);
  sequence.state =
      WaitingState{kind.fingerprint, line.model, order, first_time, ClockOf(line, now)};
  Count(sequence, first_time, 1);
  if (line.model.empty()) return;
  ++models_[line.model].waiting;
  SetEnds(now);
}

void WaitQueue::Reorder(const OrderKey& from, const OrderKey& to) {
  for (auto& [name, line] : lines_) {
    const auto entry = line.entries.lower_bound({from, nullptr});
    if (entry == line.entries.end() || entry->first != from) continue;
    Sequence* sequence = entry->second;
    line.entries.erase(entry);
    line.entries.emplace(to, sequence);
    std::get<WaitingState>(sequence->state).order = to;
    return;
  }
  FATHOM_CHECK(false, "no sequence waits at {} {} {}", from.rank, from.value, from.number);
}

void WaitQueue::Erase(Sequence& sequence, TimeUs now) {
  const auto* waiting = std::get_if<WaitingState>(&sequence.state);
  FATHOM_CHECK(waiting != nullptr, "sequence {} does not wait", sequence.number);
  sequence.stamps.Waited(WaitedUs(sequence, now));
  auto line = lines_.find(waiting->line);
  FATHOM_CHECK(line != lines_.end() && line->second.entries.erase({waiting->order, &sequence}) == 1,
               "sequence {} is not in its line", sequence.number);
  if (line->second.entries.empty() && line->second.groups == 0) lines_.erase(line);
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
    auto line = lines_.find(name);
    return line == lines_.end() ? kNone : line->second.entries;
  };
  const Entries* from[] = {&entries(""),
                           kind.fingerprint.empty() ? &kNone : &entries(kind.fingerprint),
                           &entries(LineOfModel(kind.model))};
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

// ---- What is waited for

WaitTimes WaitQueue::ClockOf(const Line& line, TimeUs now) {
  WaitTimes clock_us = line.clock_us;
  clock_us[static_cast<size_t>(line.limit)] += now - line.noted_us;
  return clock_us;
}

WaitTimes WaitQueue::WaitedUs(const Sequence& sequence, TimeUs now) const {
  const auto& waiting = std::get<WaitingState>(sequence.state);
  WaitTimes waited_us = ClockOf(lines_.at(waiting.line), now);
  for (size_t i = 0; i < kWaitLimits; ++i) waited_us[i] -= waiting.clock_us[i];
  return waited_us;
}

void WaitQueue::NoteLimits(const std::vector<GroupLimit>& groups, TimeUs now) {
  // Of several groups that serve a line, the one that can take a sequence soonest counts.
  constexpr WaitLimit kSoonest[] = {WaitLimit::kOther, WaitLimit::kSlots, WaitLimit::kBlocks};
  for (auto& [name, line] : lines_) {
    if (line.entries.empty()) continue;
    line.clock_us = ClockOf(line, now);
    line.noted_us = now;
    line.limit = WaitLimit::kNoGroup;
    const auto serves = [&](const GroupLimit& group) {
      return line.model.empty() || name == group.kind.fingerprint ||
             (name == LineOfModel(line.model) && line.model == group.kind.model);
    };
    for (const WaitLimit limit : kSoonest) {
      const bool any = std::ranges::any_of(
          groups, [&](const GroupLimit& group) { return group.limit == limit && serves(group); });
      if (!any) continue;
      line.limit = limit;
      break;
    }
  }
}

std::array<int32_t, kWaitLimits> WaitQueue::CountByLimit() const {
  std::array<int32_t, kWaitLimits> counts = {};
  for (const auto& [name, line] : lines_) {
    counts[static_cast<size_t>(line.limit)] += static_cast<int32_t>(line.entries.size());
  }
  return counts;
}

void WaitQueue::GroupUp(const Kind& kind, TimeUs now) {
  Line& line = lines_[kind.fingerprint];
  line.model = kind.model;
  ++line.groups;
  line.give_up_us = 0;
  ++models_[kind.model].groups;
  ++groups_;
  SetEnds(now);
}

void WaitQueue::GroupDown(const Kind& kind, TimeUs now) {
  auto line = lines_.find(kind.fingerprint);
  FATHOM_CHECK(line != lines_.end() && line->second.groups > 0, "no group of {}", kind.fingerprint);
  --models_[kind.model].groups;
  --groups_;
  if (--line->second.groups == 0) {
    line->second.give_up_us = now + wait_us_;
    if (line->second.entries.empty()) lines_.erase(line);
  }
  Forget(kind.model);
  SetEnds(now);
}

std::vector<Sequence*> WaitQueue::Expire(TimeUs now) {
  std::map<std::string, Entries> moved;  // By model.
  for (auto line = lines_.begin(); line != lines_.end();) {
    const bool give_up = !line->second.model.empty() && line->second.give_up_us != 0 &&
                         line->second.give_up_us <= now;
    if (give_up) {
      for (const auto& [order, sequence] : line->second.entries) {
        sequence->stamps.Waited(WaitedUs(*sequence, now));
      }
      moved[line->second.model].merge(line->second.entries);
    }
    line = give_up ? lines_.erase(line) : std::next(line);
  }
  for (auto& [model, entries] : moved) {
    if (entries.empty()) continue;
    const std::string name = LineOfModel(model);
    Line& line = lines_[name];
    line.model = model;
    for (const auto& [order, sequence] : entries) {
      auto& waiting = std::get<WaitingState>(sequence->state);
      waiting.line = name;
      waiting.clock_us = ClockOf(line, now);
    }
    line.entries.merge(entries);
  }
  std::vector<Sequence*> over;
  // Every event comes here, so the sequences are visited only if a model's time is over.
  const bool ends = std::ranges::any_of(models_, [&](const auto& model) {
    return model.second.end_us != 0 && model.second.end_us <= now;
  });
  if (!ends) return over;
  ForEach([&](Sequence& sequence) {
    const auto model = models_.find(std::get<WaitingState>(sequence.state).model);
    if (model == models_.end() || model->second.end_us == 0 || model->second.end_us > now) return;
    over.push_back(&sequence);
  });
  return over;
}

TimeUs WaitQueue::NextTimeUs() const {
  TimeUs next = std::numeric_limits<TimeUs>::max();
  for (const auto& [name, line] : lines_) {
    if (!line.model.empty() && line.give_up_us != 0) next = std::min(next, line.give_up_us);
  }
  for (const auto& [name, model] : models_) {
    if (model.waiting > 0 && model.end_us != 0) next = std::min(next, model.end_us);
  }
  return next;
}

void WaitQueue::ForEach(const std::function<void(Sequence&)>& visit) const {
  for (const auto& [name, line] : lines_) {
    for (const auto& [order, sequence] : line.entries) visit(*sequence);
  }
}

}  // namespace fathom::scheduler
