#include "scheduler/core/placement.h"

#include <algorithm>
#include <limits>
#include <string>

#include "cluster/protocol.h"
#include "common/reason.h"

namespace fathom::scheduler {
namespace {

// The most sequences without room that one admission passes, which bounds its cost.
constexpr int kOvertakenMax = 8;

int64_t Total(const Record& record) {
  return static_cast<int64_t>(record.prompt_ids.size()) + record.request.stop.max_tokens;
}

int64_t PoolTokens(const GroupLimits& limits) {
  return static_cast<int64_t>(limits.blocks - 1) * limits.block_tokens;
}

// Workers of an older version refuse a plan with a thinking budget.
bool KeepsBudget(const Record& record, const GroupLimits& limits) {
  return record.request.thinking.end < 0 || limits.protocol >= kProtocol2;
}

// Whether a group of these limits can compute the request to its end. The last token needs no room
// in the pool, because no step computes its KV.
bool FitsGroup(const Record& record, const GroupLimits& limits) {
  return Total(record) <= limits.context_tokens && Total(record) - 1 <= PoolTokens(limits) &&
         KeepsBudget(record, limits) &&
         (!record.grammar || record.grammar->vocabulary == limits.grammar_vocabulary);
}

absl::Status CheckGrammar(const Record& record, const GroupLimits& limits) {
  if (!record.grammar || record.grammar->vocabulary == limits.grammar_vocabulary) {
    return absl::OkStatus();
  }
  return WithReason(
      limits.grammar_vocabulary.empty()
          ? Unimplemented("request {}: its output follows a grammar, and these workers have no "
                          "grammar engine; start workers that are built with it "
                          "(deploy/fetch-xgrammar)",
                          record.key.request_id)
          : Unimplemented("request {}: its grammar is for the vocabulary {:.12}, the workers' is "
                          "{:.12}; start routers and workers of one build with one model folder",
                          record.key.request_id, record.grammar->vocabulary,
                          limits.grammar_vocabulary),
      Reason::kNoGrammarEngine);
}

absl::Status CheckFitsGroup(const Record& record, const GroupLimits& limits) {
  if (FitsGroup(record, limits)) return absl::OkStatus();
  if (!KeepsBudget(record, limits)) {
    return WithReason(
        Unimplemented("request {}: these workers are of an older version, which knows no thinking "
                      "budget; leave it out, or upgrade the workers",
                      record.key.request_id),
        Reason::kNotImplemented, "thinking.token_budget");
  }
  FATHOM_RETURN_IF_ERROR(CheckGrammar(record, limits));
  const bool context = Total(record) > limits.context_tokens;
  const int64_t limit = context ? limits.context_tokens : PoolTokens(limits) + 1;
  const auto prompt = static_cast<int64_t>(record.prompt_ids.size());
  const std::string what =
      context ? fmt::format("the model's context of {} tokens", limit)
              : fmt::format("the {} tokens that the KV pool can end ({} blocks of {})", limit,
                            limits.blocks - 1, limits.block_tokens);
  const std::string remedy =
      prompt < limit ? fmt::format("lower max_tokens to {} or shorten the prompt", limit - prompt)
                     : fmt::format("shorten the prompt to {} tokens or fewer", limit - 1);
  const char* pool_hint = context ? "" : ", or start the workers with a larger --kv-cache-memory";
  return WithReason(Invalid("request {}: prompt {} + max_tokens {} = {} tokens exceed {}; {}{}",
                            record.key.request_id, prompt, record.request.stop.max_tokens,
                            Total(record), what, remedy, pool_hint),
                    context ? Reason::kContextLengthExceeded : Reason::kKvPoolExceeded,
                    prompt < limit ? "stop.max_tokens" : "prompt");
}

// A group looks at so many sequences that it leaves to other groups; then it takes none.
constexpr int kLeftMax = 16;

int32_t KnownTokens(const Sequence& sequence) {
  return sequence.session->prompt_tokens() + static_cast<int32_t>(sequence.record().ids.size());
}

}  // namespace

std::vector<Group*> Placement::GroupsInTurn() const {
  std::vector<Group*> order;
  for (const auto& [id, group] : groups_) {
    if (!group->full()) order.push_back(group.get());
  }
  std::stable_sort(order.begin(), order.end(), [](const Group* a, const Group* b) {
    return a->running.size() < b->running.size();
  });
  return order;
}

Placement::Choice Placement::NextFor(const Group& group, const Room& room) const {
  const auto all =
      static_cast<int64_t>(group.running.size()) + waiting_.size() - waiting_.held_size();
  const int64_t of_lane = group.lane_sizes[static_cast<size_t>(room.lane)];
  if (group.draining || group.free_slots.empty() || of_lane * group.limits.lanes >= all) return {};
  Choice choice, later;  // `later`: the first that would better wait, if there is no other.
  int left = 0;          // To other groups.
  choice.sequence = waiting_.First(group.lines, [&](Sequence& each) {
    using enum WaitQueue::Verdict;
    if (!FitsGroup(each.session->record, group.limits)) return kPass;
    if (SequencePrefixes::WaitsForPrompt(each)) return kPass;
    if (shares_.IsOver(each.session->record.key.tenant) &&
        (!room.rows_for_over || IsKeptOut(group, each))) {
      return kPassTenant;
    }
    // The record gets the tokens of the steps that were in flight at the swap; then it knows
    // which of the swapped KV is that of its tokens.
    if (each.swapped && each.swapped->group == group.id &&
        !group.HasResultsBefore(each.swapped->settled_at)) {
      return kStop;
    }
    const Best best = BestFor(group, each, room.now);
    if (best == Best::kElsewhere) return ++left <= kLeftMax ? kPass : kStop;
    const bool passable =
        !each.seated_before && std::get<WaitingState>(each.state).overtakes < room.overtakes_max;
    const bool has_room = HasRoom(group, each);
    if (has_room && !(passable && left < kLeftMax && best == Best::kElsewhereLater)) {
      return kTake;
    }
    if (has_room) {
      ++left;
      if (later.sequence == nullptr) later = {&each, choice.overtaken};
    } else if (!passable || std::ssize(choice.overtaken) >= kOvertakenMax + left) {
      return kStop;
    }
    choice.overtaken.push_back(&each);
    return kPass;
  });
  return choice.sequence != nullptr ? choice : later;
}

Sequence* Placement::FirstFor(const Group& group) const {
  return waiting_.First(group.lines, [&](const Sequence& each) {
    return FitsGroup(each.session->record, group.limits) ? WaitQueue::Verdict::kTake
                                                         : WaitQueue::Verdict::kPass;
  });
}

// Whether there is room for the sequence's known tokens and one block more, if it may need that.
bool Placement::HasRoom(const Group& group, const Sequence& sequence, int32_t more_blocks) const {
  const int32_t block_tokens = group.kv.block_tokens();
  const auto tokens = static_cast<int32_t>(
      std::min(int64_t{KnownTokens(sequence)} + block_tokens, Total(sequence.session->record) - 1) +
      int64_t{more_blocks} * block_tokens);
  if (group.kv.HasRoomFor(tokens)) return true;
  const auto query = prefixes_.QueryOf(sequence, group);
  return query && group.kv.HasRoomFor(tokens, &*query);
}

bool Placement::IsKeptOut(const Group& group, const Sequence& sequence) const {
  if (sequence.seated_before) return false;
  const std::string& tenant = sequence.session->record.key.tenant;
  if (shares_.OthersAreThere(tenant)) return true;
  const int32_t slots = group.slots();
  const int32_t kept = shares_.KeptSlots(tenant, slots, groups_.size());
  if (std::ssize(group.free_slots) <= kept) return true;
  const int64_t blocks = int64_t{group.kv.pool().total_blocks()} * kept / slots;
  return !HasRoom(group, sequence, static_cast<int32_t>(blocks));
}

int64_t Placement::CostOf(const Group& group, const Sequence& sequence,
                          SequencePrefixes::Queries* queries) const {
  const int32_t block_tokens = group.kv.block_tokens();
  const PrefixQuery* query = queries->Of(group);
  int32_t shared = query != nullptr ? group.kv.CachedTokens(*query) : 0;
  if (SequencePrefixes::ForkSource(sequence, group) != nullptr) {
    shared = std::max(shared, sequence.session->prompt_tokens() - 1);
  }
  const int64_t free = int64_t{group.kv.pool().free_blocks()} * block_tokens;
  return KnownTokens(sequence) - shared + kSequenceTokens * std::ssize(group.running) +
         std::max<int64_t>(0, Total(sequence.session->record) - 1 - shared - free);
}

Placement::Best Placement::BestFor(const Group& group, const Sequence& sequence, TimeUs now) const {
  if (groups_.size() < 2) return Best::kHere;
  SequencePrefixes::Queries queries(prefixes_, sequence);
  const int64_t here = CostOf(group, sequence, &queries);
  Best best = Best::kHere;
  for (const auto& [id, each] : groups_) {
    const Group& other = *each;
    if (&other == &group || other.draining || other.fingerprint != group.fingerprint ||
        now - other.result_us >= kGroupSilentUs ||
        !FitsGroup(sequence.session->record, other.limits)) {
      continue;
    }
    const int64_t there = CostOf(other, sequence, &queries);
    if (there >= here) continue;
    if (!other.free_slots.empty() && HasRoom(other, sequence)) return Best::kElsewhere;
    if (there + kWaitTokens < here) best = Best::kElsewhereLater;
  }
  return best;
}

TimeUs Placement::NextTimeUs(TimeUs now) const {
  TimeUs next = std::numeric_limits<TimeUs>::max();
  for (const auto& [id, group] : groups_) {
    const TimeUs end_us = group->result_us + kGroupSilentUs;
    if (groups_.size() > 1 && end_us > now) next = std::min(next, end_us);
  }
  return next;
}

bool Placement::CanMove(const Sequence& sequence, const Group& from) const {
  return std::ranges::any_of(groups_, [&](const auto& entry) {
    const Group& to = *entry.second;
    return to.id != from.id && !to.draining && to.fingerprint == from.fingerprint &&
           FitsGroup(sequence.session->record, to.limits);
  });
}

WaitLimit Placement::LimitOf(const Group& group) const {
  if (group.draining) return WaitLimit::kNoGroup;
  if (group.free_slots.empty()) return WaitLimit::kSlots;
  const Sequence* first = FirstFor(group);
  if (first == nullptr) return WaitLimit::kNoGroup;
  if (shares_.IsOver(first->session->record.key.tenant) && IsKeptOut(group, *first)) {
    return WaitLimit::kSlots;
  }
  return HasRoom(group, *first) ? WaitLimit::kOther : WaitLimit::kBlocks;
}

absl::Status Placement::CheckFits(const Record& record) const {
  if (!last_limits_) return absl::OkStatus();
  if (groups_.empty()) return CheckFitsGroup(record, *last_limits_);
  absl::Status status;
  for (const auto& [id, group] : groups_) {
    status = CheckFitsGroup(record, group->limits);
    if (status.ok()) break;
  }
  return status;
}

}  // namespace fathom::scheduler
