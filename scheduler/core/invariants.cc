// The invariants of the core, which must hold after every event. The tests, the simulation and
// `fathom replay` call SchedulerCore::CheckInvariants. Nothing here changes the core.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "scheduler/core/core_impl.h"

namespace fathom::scheduler {

static absl::Status CheckSwapped(const Group& group) {
  std::set<BlockId> held;
  for (const auto& [number, sequence] : group.swapped) {
    if (sequence->number != number || !sequence->swapped || sequence->swapped->group != group.id ||
        !std::holds_alternative<WaitingState>(sequence->state)) {
      return Internal("group {}: its swap space has KV of sequence {}, which does not wait for it",
                      group.id.value, number);
    }
    const SwappedKv& swapped = *sequence->swapped;
    for (const BlockId block : swapped.blocks) {
      if (!held.insert(block).second || group.swap_space.references(block) != 1) {
        return Internal("group {}: block {} of the swap space twice", group.id.value, block.value);
      }
    }
    const auto room = static_cast<int64_t>(swapped.blocks.size()) * group.limits.block_tokens;
    if (swapped.tokens < 1 || swapped.tokens > room) {
      return Internal("group {}: {} tokens of sequence {} in swap space for {}", group.id.value,
                      swapped.tokens, number, room);
    }
  }
  if (std::ssize(held) != group.swap_space.used_blocks()) {
    return Internal("group {}: {} blocks of swap space used, {} counted", group.id.value,
                    held.size(), group.swap_space.used_blocks());
  }
  return absl::OkStatus();
}

absl::Status SchedulerCore::Impl::CheckInvariants() const {
  size_t running = 0, waiting = 0;
  for (const auto& [id, group] : groups_) {
    FATHOM_RETURN_IF_ERROR(CheckGroup(*group));
    FATHOM_RETURN_IF_ERROR(CheckSuspects(*group));
    FATHOM_RETURN_IF_ERROR(CheckSwapped(*group));
    running += group->running.size();
  }
  FATHOM_RETURN_IF_ERROR(waiting_.Check());
  FATHOM_RETURN_IF_ERROR(sessions_.CheckInvariants());
  sessions_.ForEach([&](const Session& session) {
    for (const Sequence& sequence : session.sequences) {
      if (sequence.running() != nullptr) ++running;
      if (std::holds_alternative<WaitingState>(sequence.state)) ++waiting;
    }
  });
  // `running` counts each running sequence twice: for its group and for its session.
  size_t seated = 0;
  for (const auto& [id, group] : groups_) seated += group->running.size();
  if (running != 2 * seated) return Internal("{} sequences run, {} sit", running - seated, seated);
  FATHOM_RETURN_IF_ERROR(admission_.CheckCounts(
      waiting_.first_time_requests(), waiting_.first_time_tokens(), static_cast<int64_t>(seated)));
  FATHOM_RETURN_IF_ERROR(
      shares_.Check(static_cast<int64_t>(waiting), static_cast<int64_t>(seated)));
  if (waiting != static_cast<size_t>(waiting_.size())) {
    return Internal("{} sequences wait, {} are in the queue", waiting, waiting_.size());
  }
  return absl::OkStatus();
}

namespace {

// The counts of tokens of a running sequence.
absl::Status CheckTokens(const Group& group, const Sequence& sequence,
                         const RunningState& running) {
  const int64_t block_tokens = group.limits.block_tokens;
  const int64_t room = std::ssize(running.blocks) * block_tokens;
  if (running.planned_tokens > room) {
    return Internal("group {}: sequence {} has {} tokens in room for {}", group.id.value,
                    sequence.number, running.planned_tokens, room);
  }
  if (running.clean_tokens > running.planned_tokens ||
      running.indexed_blocks * block_tokens >
          std::max(running.clean_tokens, running.reused_tokens)) {
    return Internal("group {}: sequence {} has {} blocks in the index, with {} clean tokens",
                    group.id.value, sequence.number, running.indexed_blocks, running.clean_tokens);
  }
  const Session& session = *sequence.session;
  if (running.next_position > session.record.request.stop.max_tokens ||
      running.planned_tokens > session.prompt_tokens() + running.next_position ||
      running.sent_tokens > running.known_tokens) {
    return Internal("group {}: sequence {} is planned beyond its end", group.id.value,
                    sequence.number);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckGroup(const Group& group) {
  const BlockPool& pool = group.kv.pool();
  std::vector<int32_t> references(static_cast<size_t>(pool.total_blocks()) + 1);
  std::set<SlotId> slots(group.free_slots.begin(), group.free_slots.end());
  std::vector<int32_t> lane_sizes(group.lane_sizes.size());
  for (const auto& [key, sequence] : group.running) {
    const RunningState* running = sequence->running();
    if (running == nullptr || running->group != group.id || running->keep != key) {
      return Internal("group {}: sequence {} sits here and does not know it", group.id.value,
                      sequence->number);
    }
    if (running->lane < 0 || running->lane >= group.limits.lanes) {
      return Internal("group {}: sequence {} is in lane {} of {}", group.id.value, sequence->number,
                      running->lane, group.limits.lanes);
    }
    ++lane_sizes[static_cast<size_t>(running->lane)];
    if (!slots.insert(running->slot).second) {
      return Internal("group {}: slot {} twice", group.id.value, running->slot.value);
    }
    for (BlockId block : running->blocks) ++references[static_cast<size_t>(block.value)];
    FATHOM_RETURN_IF_ERROR(CheckTokens(group, *sequence, *running));
  }
  const auto seats = static_cast<size_t>(group.slots());
  if (slots.size() != seats || group.free_slots.size() + group.running.size() != seats ||
      slots.begin()->value != 1) {
    return Internal("group {}: {} free and {} taken slots of {}", group.id.value,
                    group.free_slots.size(), group.running.size(), seats);
  }
  FATHOM_RETURN_IF_ERROR(group.kv.Check());
  int32_t used = 0;
  for (int32_t block = 1; block <= pool.total_blocks(); ++block) {
    const int32_t held = references[static_cast<size_t>(block)];
    used += held > 0 ? 1 : 0;
    if (pool.references(BlockId{block}) != held) {
      return Internal("group {}: block {} has {} references and {} holders", group.id.value, block,
                      pool.references(BlockId{block}), held);
    }
  }
  if (used != pool.used_blocks()) {
    return Internal("group {}: {} blocks used, {} counted", group.id.value, used,
                    pool.used_blocks());
  }
  if (group.in_flight.size() > static_cast<size_t>(group.limits.plans_in_flight)) {
    return Internal("group {}: {} plans in flight", group.id.value, group.in_flight.size());
  }
  if (lane_sizes != group.lane_sizes) {
    return Internal("group {}: its lanes count other sequences than they have", group.id.value);
  }
  for (int32_t lane = 0; lane < group.limits.lanes; ++lane) {
    const auto plans = std::ranges::count(group.in_flight, lane, &FlightStep::lane);
    if (plans > group.lane_plans_max()) {
      return Internal("group {}: {} plans of lane {} in flight", group.id.value, plans, lane);
    }
  }
  uint64_t step = group.next_step.value - group.in_flight.size();
  for (const FlightStep& flight : group.in_flight) {
    if (flight.step.value != step++) return Internal("group {}: a gap in steps", group.id.value);
  }
  return absl::OkStatus();
}

absl::Status WaitQueue::CheckLine(const std::string& name, const Line& line) const {
  Heads heads;
  for (const auto& [tenant, of] : line.tenants) {
    if (of.entries.empty() || of.held != held_.contains(tenant)) {
      return Internal("line '{}': tenant '{}' has {} entries, held {}", name, tenant,
                      of.entries.size(), of.held);
    }
    if (!of.held) heads.emplace(of.entries.begin()->first, &of);
    for (const auto& [order, sequence] : of.entries) {
      const auto* waiting = std::get_if<WaitingState>(&sequence->state);
      const auto found = by_number_.find(sequence->number);
      if (waiting == nullptr || waiting->line != name || waiting->order != order ||
          sequence->session->record.key.tenant != tenant || found == by_number_.end() ||
          found->second != sequence) {
        return Internal("sequence {} is in line '{}' and does not know it", sequence->number, name);
      }
    }
  }
  if (heads != line.heads) return Internal("line '{}' has other heads than its tenants", name);
  return absl::OkStatus();
}

absl::Status WaitQueue::Check() const {
  int32_t size = 0, first_time = 0, held = 0;
  int64_t tokens = 0;
  std::map<std::string, int32_t> waiting_of;  // By model.
  for (const auto& [name, line] : lines_) FATHOM_RETURN_IF_ERROR(CheckLine(name, line));
  ForEach([&](const Sequence& sequence) {
    const auto& waiting = std::get<WaitingState>(sequence.state);
    ++size;
    held += held_.contains(sequence.session->record.key.tenant) ? 1 : 0;
    if (!waiting.model.empty()) ++waiting_of[waiting.model];
    first_time += waiting.first_time ? 1 : 0;
    tokens += waiting.first_time ? sequence.session->prompt_tokens() : 0;
  });
  if (held != held_size_ || static_cast<size_t>(size) != by_number_.size()) {
    return Internal("the queue counts {} held, {} are, of {}", held_size_, held, size);
  }
  for (const auto& [name, model] : models_) {
    if (waiting_of[name] == model.waiting && (model.waiting > 0 || model.groups > 0)) continue;
    return Internal("model '{}' counts {} waiting and {} groups; {} wait", name, model.waiting,
                    model.groups, waiting_of[name]);
  }
  if (size != size_ || first_time != first_time_requests_ || tokens != first_time_tokens_) {
    return Internal("the queue counts {} ({} new, {} tokens), holds {} ({}, {})", size_,
                    first_time_requests_, first_time_tokens_, size, first_time, tokens);
  }
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
