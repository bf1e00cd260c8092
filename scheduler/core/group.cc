#include "scheduler/core/group.h"

#include <algorithm>

namespace fathom::scheduler {
namespace {

absl::Status CheckSampled(const FlightRow& flight, const ResultRow& row) {
  if (row.fault != RowFault::kNone) return absl::OkStatus();
  const auto ids = static_cast<int64_t>(row.ids.size());
  if (ids > flight.ids_max || (ids == 0 && flight.ids_max > 0)) {
    return Invalid("{} ids, of at most {}", ids, flight.ids_max);
  }
  if (ids == 0) return absl::OkStatus();
  if (row.drafted < ids - 1 || row.drafted > flight.ids_max - 1) {
    return Invalid("{} ids of {} drafts, of at most {}", ids, row.drafted, flight.ids_max - 1);
  }
  if (row.position != flight.position) {
    return Invalid("position {}, not {}", row.position, flight.position);
  }
  for (const TokenId id : row.ids) {
    if (id < 0) return Invalid("token {}", id);
  }
  const size_t logprobs = flight.logprobs ? row.ids.size() : 0;
  if (row.logprobs.size() != logprobs) {
    return Invalid("{} log-probabilities, not {}", row.logprobs.size(), logprobs);
  }
  return absl::OkStatus();
}

absl::Status CheckRow(const FlightRow& flight, const ResultRow& row) {
  if (row.sequence != flight.sequence) {
    return Invalid("sequence {}, not {}", row.sequence, flight.sequence);
  }
  if (row.prompt_logprobs) {
    const auto& [start, logprobs] = *row.prompt_logprobs;
    if (!flight.prompt_logprobs || start < 1 ||
        start + static_cast<int64_t>(logprobs.size()) > flight.prompt_tokens) {
      return Invalid("prompt log-probabilities from {} to {} of a prompt of {}", start,
                     start + static_cast<int64_t>(logprobs.size()), flight.prompt_tokens);
    }
  }
  return CheckSampled(flight, row);
}

}  // namespace

Group::Group(const GroupUp& up)
    : id(up.group),
      term(up.term),
      epoch(up.epoch),
      limits(up.limits),
      fingerprint(up.fingerprint),
      kind(up.kind),
      lines(WaitQueue::Kind::Of(up.fingerprint, up.kind)),
      kv(up.limits.blocks, up.limits.block_tokens),
      swap_space(up.limits.host_blocks + 1),
      lane_sizes(static_cast<size_t>(up.limits.lanes)),
      speculation(up.limits.draft_max) {
  for (int32_t slot = slots(); slot >= 1; --slot) free_slots.push_back(SlotId{slot});
}

bool Group::lane_full(int32_t lane) const {
  return std::ranges::count(in_flight, lane, &FlightStep::lane) >= lane_plans_max();
}

int32_t Group::Decoders(int32_t lane) const {
  return static_cast<int32_t>(std::ranges::count_if(running, [lane](const auto& entry) {
    const RunningState& state = *entry.second->running();
    return state.lane == lane && state.decoding() &&
           state.next_position < entry.second->session->record.request.stop.max_tokens;
  }));
}

bool Group::AwaitsResults(int32_t lane) const {
  if (limits.draft_max == 0) return false;
  bool in_lane = false, drafts = false;
  for (const FlightStep& flight : in_flight) {
    if (flight.lane != lane) continue;
    in_lane = true;
    drafts |= flight.drafts;
  }
  return drafts || (in_lane && speculation.Grant(Decoders(lane)) > 0);
}

absl::Status CheckLimits(const GroupLimits& limits) {
  if (limits.blocks < 2 || limits.block_tokens < 1 || limits.slots < 1 || limits.step_tokens < 1 ||
      limits.context_tokens < 2 || limits.plans_in_flight < 1 || limits.host_blocks < 0) {
    return Invalid(
        "limits that no plan can keep to: {} blocks of {} tokens, {} slots, {} step tokens, "
        "{} context tokens, {} plans in flight, {} blocks of swap space; each must be at least 1, "
        "blocks and context 2, swap space 0",
        limits.blocks, limits.block_tokens, limits.slots, limits.step_tokens, limits.context_tokens,
        limits.plans_in_flight, limits.host_blocks);
  }
  if (limits.lanes < 1 || limits.lanes > limits.plans_in_flight) {
    return Invalid(
        "limits that no plan can keep to: {} lanes for {} plans in flight; there must be at least "
        "1 lane and a plan for each",
        limits.lanes, limits.plans_in_flight);
  }
  if (limits.draft_max < 0 || limits.draft_max > kDraftsMax) {
    return Invalid("limits that no plan can keep to: {} drafts of a row; there are 0 to {}",
                   limits.draft_max, kDraftsMax);
  }
  return absl::OkStatus();
}

absl::Status CheckResult(const FlightStep& flight, const StepResult& result) {
  if (result.step != flight.step) {
    return Invalid("result of step {}, expected that of {}", result.step.value, flight.step.value);
  }
  std::vector<bool> seen(flight.rows.size());
  for (const ResultRow& row : result.rows) {
    if (row.row < 0 || static_cast<size_t>(row.row) >= flight.rows.size()) {
      return Invalid("step {}: row {} of {}", result.step.value, row.row, flight.rows.size());
    }
    const auto index = static_cast<size_t>(row.row);
    if (seen[index]) return Invalid("step {}: row {} twice", result.step.value, row.row);
    seen[index] = true;
    const absl::Status status = CheckRow(flight.rows[index], row);
    if (!status.ok()) {
      return Annotate(status, fmt::format("step {}, row {}", result.step.value, row.row));
    }
  }
  for (size_t i = 0; i < seen.size(); ++i) {
    if (!seen[i] && flight.rows[i].ids_max > 0) {
      return Invalid("step {}: no token for row {}", result.step.value, i);
    }
  }
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
