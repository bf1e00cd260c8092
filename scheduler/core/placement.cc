#include "scheduler/core/placement.h"

#include <algorithm>
#include <string>

#include "common/reason.h"

namespace fathom::scheduler {
namespace {

int64_t Total(const Record& record) {
  return static_cast<int64_t>(record.prompt_ids.size()) + record.request.stop.max_tokens;
}

int64_t PoolTokens(const GroupLimits& limits) {
  return static_cast<int64_t>(limits.blocks - 1) * limits.block_tokens;
}

// Whether a group of these limits can compute the request to its end. The last token needs no room
// in the pool, because no step computes its KV.
bool FitsGroup(const Record& record, const GroupLimits& limits) {
  return Total(record) <= limits.context_tokens && Total(record) - 1 <= PoolTokens(limits);
}

absl::Status CheckFitsGroup(const Record& record, const GroupLimits& limits) {
  if (FitsGroup(record, limits)) return absl::OkStatus();
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

// Whether there is room for the sequence's known tokens and one block more, if it may need that.
bool HasRoom(const Group& group, const Sequence& sequence) {
  const Record& record = sequence.session->record;
  const auto known = static_cast<int64_t>(record.prompt_ids.size() + sequence.record().ids.size());
  return group.kv.HasRoomFor(
      static_cast<int32_t>(std::min(known + group.kv.block_tokens(), Total(record) - 1)));
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

Sequence* Placement::NextFor(const Group& group, int32_t lane) const {
  const auto all = static_cast<int64_t>(group.running.size()) + waiting_.size();
  const int64_t of_lane = group.lane_sizes[static_cast<size_t>(lane)];
  if (group.draining || group.free_slots.empty() || of_lane * group.limits.lanes >= all)
    return nullptr;
  Sequence* first = FirstFor(group);
  return first != nullptr && HasRoom(group, *first) ? first : nullptr;
}

Sequence* Placement::FirstFor(const Group& group) const {
  return waiting_.First(
      WaitQueue::Kind::Of(group.fingerprint, group.kind),
      [&](const Sequence& each) { return FitsGroup(each.session->record, group.limits); });
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
