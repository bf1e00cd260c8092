#include "scheduler/core/wait_queue.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/check.h"

namespace fathom::scheduler {

namespace {

// The name of a model's line. No fingerprint has a blank, so the name is not that of another line.
std::string LineOfModel(const std::string& model) { return "model " + model; }

}  // namespace

WaitQueue::Kind::Kind(std::string of_fingerprint, std::string of_model)
    : fingerprint(std::move(of_fingerprint)),
      model(std::move(of_model)),
      model_line(LineOfModel(model)) {}

// ---- The sequences of a line

const WaitQueue::Entries::value_type* WaitQueue::Cursor::Peek() const {
  const Entries::value_type* best = nullptr;
  if (next_head_ != heads_->end()) best = &*next_head_->second->entries.begin();
  for (const Open& open : open_) {
    if (open.next == open.end) continue;
    if (best == nullptr || open.next->first < best->first) best = &*open.next;
  }
  return best;
}

void WaitQueue::Cursor::Advance() {
  const Entries::value_type* at = Peek();
  for (Open& open : open_) {
    if (open.next == open.end || &*open.next != at) continue;
    ++open.next;
    return;
  }
  const Entries& entries = next_head_->second->entries;
  ++next_head_;
  if (entries.size() > 1) open_.push_back({std::next(entries.begin()), entries.end()});
}

void WaitQueue::Cursor::AdvanceToOtherTenant() {
  const Entries::value_type* at = Peek();
  for (auto open = open_.begin(); open != open_.end(); ++open) {
    if (open->next == open->end || &*open->next != at) continue;
    open_.erase(open);
    return;
  }
  ++next_head_;
}

WaitQueue::TenantEntries& WaitQueue::Insert(Line& line, const OrderKey& order, Sequence& sequence,
                                            TimeUs now) {
  const std::string& tenant = sequence.session->record.key.tenant;
  const auto [found, is_new] = line.tenants.try_emplace(tenant);
  TenantEntries& of = found->second;
  if (is_new && held_.contains(tenant)) SetHeld(line, of, true, now);
  if (!of.held && !of.entries.empty()) line.heads.erase({of.entries.begin()->first, &of});
  of.entries.emplace(order, &sequence);
  if (!of.held) line.heads.emplace(of.entries.begin()->first, &of);
  return of;
}

void WaitQueue::Remove(Line& line, const OrderKey& order, Sequence& sequence) {
  const auto found = line.tenants.find(sequence.session->record.key.tenant);
  FATHOM_CHECK(found != line.tenants.end(), "sequence {} is not in its line", sequence.number);
  TenantEntries& of = found->second;
  if (!of.held) line.heads.erase({of.entries.begin()->first, &of});
  FATHOM_CHECK(of.entries.erase({order, &sequence}) == 1, "sequence {} is not in its line",
               sequence.number);
  if (of.entries.empty()) {
    line.tenants.erase(found);
  } else if (!of.held) {
    line.heads.emplace(of.entries.begin()->first, &of);
  }
}

void WaitQueue::SetHeld(Line& line, TenantEntries& of, bool held, TimeUs now) {
  if (of.held == held) return;
  of.held = held;
  const WaitTimes clock_us = ClockOf(line, now);
  if (held) {
    if (!of.entries.empty()) line.heads.erase({of.entries.begin()->first, &of});
    of.held_clock_us = clock_us;
    of.held_us = now;
    return;
  }
  if (!of.entries.empty()) line.heads.emplace(of.entries.begin()->first, &of);
  for (size_t i = 0; i < kWaitLimits; ++i) of.offset_us[i] -= clock_us[i] - of.held_clock_us[i];
  of.offset_us[static_cast<size_t>(WaitLimit::kTenantRunning)] += now - of.held_us;
}

void WaitQueue::Hold(const std::string& tenant, bool held, TimeUs now) {
  const bool changed = held ? held_.insert(tenant).second : held_.erase(tenant) > 0;
  if (!changed) return;
  if (const auto waiting = waiting_of_.find(tenant); waiting != waiting_of_.end()) {
    held_size_ += held ? waiting->second : -waiting->second;
  }
  for (auto& [name, line] : lines_) {
    const auto of = line.tenants.find(tenant);
    if (of != line.tenants.end()) SetHeld(line, of->second, held, now);
  }
}

// ---- The queue

void WaitQueue::Push(Sequence& sequence, OrderKey order, const Kind& kind, bool first_time,
                     TimeUs now) {
  FATHOM_CHECK(sequence.suspended(), "sequence {} is elsewhere", sequence.number);
  Line& line = lines_[kind.fingerprint];
  if (line.model.empty()) line.model = kind.model;
  if (line.groups == 0 && line.tenants.empty() && line.give_up_us == 0) {
    line.give_up_us = now + wait_us_;
  }
  const TenantEntries& of = Insert(line, order, sequence, now);
  sequence.state =
      WaitingState{kind.fingerprint, line.model, order, first_time, ClockOf(line, of, now)};
  Count(sequence, first_time, 1);
  if (line.model.empty()) return;
  ++models_[line.model].waiting;
  SetEnds(now);
}

void WaitQueue::Reorder(const OrderKey& from, const OrderKey& to) {
  const auto found = by_number_.find(from.number);
  FATHOM_CHECK(found != by_number_.end(), "no sequence waits at {} {} {}", from.rank, from.value,
               from.number);
  Sequence& sequence = *found->second;
  auto& waiting = std::get<WaitingState>(sequence.state);
  FATHOM_CHECK(waiting.order == from && to.number == from.number,
               "sequence {} does not wait at {} {}", from.number, from.rank, from.value);
  Line& line = lines_.at(waiting.line);
  TenantEntries& of = line.tenants.at(sequence.session->record.key.tenant);
  if (!of.held) line.heads.erase({of.entries.begin()->first, &of});
  of.entries.erase({from, &sequence});
  of.entries.emplace(to, &sequence);
  if (!of.held) line.heads.emplace(of.entries.begin()->first, &of);
  waiting.order = to;
}

void WaitQueue::Erase(Sequence& sequence, TimeUs now) {
  const auto* waiting = std::get_if<WaitingState>(&sequence.state);
  FATHOM_CHECK(waiting != nullptr, "sequence {} does not wait", sequence.number);
  sequence.stamps.Waited(WaitedUs(sequence, now));
  const auto line = lines_.find(waiting->line);
  FATHOM_CHECK(line != lines_.end(), "sequence {} is not in its line", sequence.number);
  Remove(line->second, waiting->order, sequence);
  if (line->second.tenants.empty() && line->second.groups == 0) lines_.erase(line);
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

void WaitQueue::Count(Sequence& sequence, bool first_time, int32_t sign) {
  const std::string& tenant = sequence.session->record.key.tenant;
  size_ += sign;
  if (held_.contains(tenant)) held_size_ += sign;
  const auto of = waiting_of_.try_emplace(tenant, 0).first;
  of->second += sign;
  if (of->second == 0) waiting_of_.erase(of);
  if (sign > 0) {
    by_number_.emplace(sequence.number, &sequence);
  } else {
    by_number_.erase(sequence.number);
  }
  if (!first_time) return;
  first_time_requests_ += sign;
  first_time_tokens_ += sign * sequence.session->prompt_tokens();
}

Sequence* WaitQueue::First(const Kind& kind, const std::function<Verdict(Sequence&)>& judge) const {
  static const Heads kNone;
  const auto heads = [&](const std::string& name) {
    const auto line = lines_.find(name);
    return line == lines_.end() ? &kNone : &line->second.heads;
  };
  Cursor cursors[] = {Cursor(heads("")),
                      Cursor(kind.fingerprint.empty() ? &kNone : heads(kind.fingerprint)),
                      Cursor(heads(kind.model_line))};
  while (true) {
    Cursor* best = nullptr;
    for (Cursor& cursor : cursors) {
      if (cursor.Peek() == nullptr) continue;
      if (best == nullptr || cursor.Peek()->first < best->Peek()->first) best = &cursor;
    }
    if (best == nullptr) return nullptr;
    Sequence* sequence = best->Peek()->second;
    switch (judge(*sequence)) {
      case Verdict::kTake:
        return sequence;
      case Verdict::kPass:
        best->Advance();
        break;
      case Verdict::kPassTenant:
        best->AdvanceToOtherTenant();
        break;
      case Verdict::kStop:
        return nullptr;
    }
  }
}

// ---- What is waited for

WaitTimes WaitQueue::ClockOf(const Line& line, TimeUs now) {
  WaitTimes clock_us = line.clock_us;
  clock_us[static_cast<size_t>(line.limit)] += now - line.noted_us;
  return clock_us;
}

WaitTimes WaitQueue::ClockOf(const Line& line, const TenantEntries& of, TimeUs now) {
  WaitTimes clock_us = of.held ? of.held_clock_us : ClockOf(line, now);
  for (size_t i = 0; i < kWaitLimits; ++i) clock_us[i] += of.offset_us[i];
  if (of.held) clock_us[static_cast<size_t>(WaitLimit::kTenantRunning)] += now - of.held_us;
  return clock_us;
}

WaitTimes WaitQueue::WaitedUs(const Sequence& sequence, TimeUs now) const {
  const auto& waiting = std::get<WaitingState>(sequence.state);
  const Line& line = lines_.at(waiting.line);
  WaitTimes waited_us = ClockOf(line, line.tenants.at(sequence.session->record.key.tenant), now);
  for (size_t i = 0; i < kWaitLimits; ++i) waited_us[i] -= waiting.clock_us[i];
  return waited_us;
}

void WaitQueue::NoteLimits(const std::vector<GroupLimit>& groups, TimeUs now) {
  // Of several groups that serve a line, the one that can take a sequence soonest counts.
  constexpr WaitLimit kSoonest[] = {WaitLimit::kOther, WaitLimit::kSlots, WaitLimit::kBlocks};
  for (auto& [name, line] : lines_) {
    if (line.tenants.empty()) continue;
    line.clock_us = ClockOf(line, now);
    line.noted_us = now;
    line.limit = WaitLimit::kNoGroup;
    const auto serves = [&](const GroupLimit& group) {
      return line.model.empty() || name == group.kind->fingerprint ||
             name == group.kind->model_line;
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
    for (const auto& [tenant, of] : line.tenants) {
      const WaitLimit limit = of.held ? WaitLimit::kTenantRunning : line.limit;
      counts[static_cast<size_t>(limit)] += static_cast<int32_t>(of.entries.size());
    }
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
    if (line->second.tenants.empty()) lines_.erase(line);
  }
  Forget(kind.model);
  SetEnds(now);
}

std::vector<Sequence*> WaitQueue::Expire(TimeUs now) {
  std::map<std::string, std::vector<Sequence*>> moved;  // By model.
  for (auto line = lines_.begin(); line != lines_.end();) {
    const bool give_up = !line->second.model.empty() && line->second.give_up_us != 0 &&
                         line->second.give_up_us <= now;
    if (give_up) {
      for (const auto& [tenant, of] : line->second.tenants) {
        for (const auto& [order, sequence] : of.entries) {
          sequence->stamps.Waited(WaitedUs(*sequence, now));
          moved[line->second.model].push_back(sequence);
        }
      }
    }
    line = give_up ? lines_.erase(line) : std::next(line);
  }
  for (auto& [model, sequences] : moved) {
    const std::string name = LineOfModel(model);
    Line& line = lines_[name];
    line.model = model;
    for (Sequence* sequence : sequences) {
      auto& waiting = std::get<WaitingState>(sequence->state);
      waiting.line = name;
      waiting.clock_us = ClockOf(line, Insert(line, waiting.order, *sequence, now), now);
    }
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
    for (const auto& [tenant, of] : line.tenants) {
      for (const auto& [order, sequence] : of.entries) visit(*sequence);
    }
  }
}

}  // namespace fathom::scheduler
