// The life of groups: which free workers form one, and how long its workers wait after it is lost.
#include <algorithm>
#include <map>
#include <tuple>

#include "common/check.h"
#include "scheduler/membership/worker_group.h"

namespace fathom::scheduler {
namespace {

constexpr int32_t kFailuresMax = 16;  // Enough for any retry_max_us; limits the shift.
constexpr int kLossCharsMax = 1024;

// Two losses have the same reason if only times and ids differ in the text.
std::string WithoutNumbers(const std::string& text) {
  std::string kept;
  for (const char c : text) {
    if (c < '0' || c > '9') kept += c;
  }
  return kept;
}

}  // namespace

void WorkerGroups::SetTerm(TermId term, TimeUs now, GroupActions* out) {
  const std::string reason = fmt::format("term {} begins", term.value);
  // Not counted as a failure of a worker.
  for (; !groups_.empty(); groups_.erase(groups_.begin())) {
    const auto& [id, group] = *groups_.begin();
    Dissolve(group, reason, now, out);
    out->log.push_back(fmt::format("group {} ends: {}", id.value, reason));
    if (group.up) out->lost.push_back({id, group.epoch});
    ++stats_.groups_lost_total;
  }
  UpdateFacts();
  term_ = term;
  epochs_ = 0;
  FormGroups(now, out);
}

void WorkerGroups::FormGroups(TimeUs now, GroupActions* out) {
  // All ranks of a group must compute the same bits (fingerprint) and have the same shape and host.
  using Kind = std::tuple<std::string, std::string, int32_t, int32_t>;
  std::map<Kind, std::vector<PeerId>> free;
  for (const auto& [peer, worker] : workers_) {
    if (worker.group || worker.free_from_us > now || worker.phase == Phase::kDraining) continue;
    const WorkerFacts& facts = *worker.hello.worker;
    free[{facts.fingerprint, facts.host, facts.tp, facts.pp}].push_back(peer);
  }
  for (auto& [kind, peers] : free) {
    const auto ranks = static_cast<size_t>(std::get<2>(kind)) * std::get<3>(kind);
    std::stable_sort(peers.begin(), peers.end(), [&](PeerId a, PeerId b) {
      // -1 (no preference) sorts last.
      return static_cast<uint32_t>(workers_.at(a).hello.worker->preferred_rank) <
             static_cast<uint32_t>(workers_.at(b).hello.worker->preferred_rank);
    });
    for (size_t i = 0; i + ranks <= peers.size(); i += ranks) {
      Form({peers.begin() + i, peers.begin() + i + ranks}, now, out);
    }
  }
}

void WorkerGroups::Form(const std::vector<PeerId>& controls, TimeUs now, GroupActions* out) {
  const GroupId id{++group_ids_};
  Group group;
  group.epoch = EpochId{++epochs_};
  group.formed_us = now;
  GroupSeat seat{
      id, term_, group.epoch, 0, 0, 0, {}, 0, workers_.at(controls[0]).hello.worker->limits};
  for (const PeerId control : controls) {
    const Hello& hello = workers_.at(control).hello;
    const EngineLimits& limits = hello.worker->limits;
    seat.tp = hello.worker->tp;
    seat.pp = hello.worker->pp;
    seat.peers.push_back({hello.process_id, hello.worker->host});
    seat.limits.context_tokens = std::min(seat.limits.context_tokens, limits.context_tokens);
    seat.limits.pool_blocks = std::min(seat.limits.pool_blocks, limits.pool_blocks);
    seat.limits.slots = std::min(seat.limits.slots, limits.slots);
    seat.limits.step_tokens = std::min(seat.limits.step_tokens, limits.step_tokens);
    seat.limits.mixed_step_tokens =
        std::min(seat.limits.mixed_step_tokens, limits.mixed_step_tokens);
  }
  seat.blocks = seat.limits.pool_blocks;
  group.shape = seat.shape();
  group.limits = {.blocks = seat.blocks,
                  .block_tokens = seat.limits.block_tokens,
                  .slots = seat.limits.slots,
                  .step_tokens = seat.limits.step_tokens,
                  .context_tokens = seat.limits.context_tokens,
                  // One for each stage, and one that is there when the first stage is done.
                  .plans_in_flight = seat.pp + 1,
                  .mixed_step_tokens = seat.limits.mixed_step_tokens,
                  .lanes = seat.pp};
  for (const PeerId control : controls) {
    Worker& worker = workers_.at(control);
    worker.group = id;
    worker.rank = seat.rank = static_cast<int32_t>(group.ranks.size());
    worker.progress_us = now;
    group.ranks.push_back({control, std::nullopt, false, StepId{0}});
    out->messages.emplace_back(control, seat);
  }
  groups_.emplace(id, std::move(group));
  ++stats_.groups_formed_total;
}

void WorkerGroups::ComeUp(GroupId id, TimeUs now, GroupActions* out) {
  Group& group = groups_.at(id);
  for (const Rank& rank : group.ranks) {
    if (!rank.ready || !rank.steps) return;
  }
  FATHOM_CHECK(!group.up, "group {} came up twice", id.value);
  group.up = true;
  group.up_us = now;
  const WorkerFacts& facts = *workers_.at(group.ranks[0].control).hello.worker;
  const ComputeKind kind{facts.weights_digest, facts.dtype, facts.device_kind, facts.tp,
                         facts.recipe};
  out->up.push_back({id, term_, group.epoch, group.limits, facts.fingerprint, kind});
  out->log.push_back(fmt::format(
      "group {} up: term {} epoch {}, tp {} pp {} on {} ({}), model {}, {} blocks of {} tokens, {} "
      "slots, ready after {} ms",
      id.value, term_.value, group.epoch.value, facts.tp, facts.pp, facts.host, facts.device,
      facts.model, group.limits.blocks, group.limits.block_tokens, group.limits.slots,
      (now - group.formed_us) / 1000));
  UpdateFacts();
}

void WorkerGroups::Lose(GroupId id, int32_t lost_rank, const std::string& reason, TimeUs now,
                        GroupActions* out) {
  const auto it = groups_.find(id);
  const Group group = std::move(it->second);
  groups_.erase(it);
  std::string who = "no rank in particular";
  if (lost_rank >= 0) {
    who = fmt::format("rank {}", lost_rank);
    const auto worker = workers_.find(group.ranks[lost_rank].control);
    if (worker != workers_.end())
      who += fmt::format(" (process {})", worker->second.hello.process_id);
  }
  uint64_t done = group.next_plan.value;
  for (const Rank& rank : group.ranks) done = std::min(done, rank.next_result.value);
  const bool worked = done > 0 || (group.up && now - group.up_us >= options_.healthy_us);
  Dissolve(group, reason, now, out);
  HoldBack(group, lost_rank, worked, now);
  NoteLoss(lost_rank >= 0 ? fmt::format("rank {}", lost_rank) : "no rank in particular", reason,
           worked);
  out->log.push_back(
      fmt::format("group {} lost{}: {}: {}; term {} epoch {}, {} steps sent, {} done by every rank",
                  id.value, group.up ? "" : " before it was up", who, reason, term_.value,
                  group.epoch.value, group.next_plan.value, done));
  if (group.up) out->lost.push_back({id, group.epoch});
  ++stats_.groups_lost_total;
  UpdateFacts();
}

void WorkerGroups::Dissolve(const Group& group, const std::string& reason, TimeUs now,
                            GroupActions* out) {
  for (const Rank& rank : group.ranks) {
    if (rank.steps) {
      steps_peers_.erase(*rank.steps);
      out->closes.emplace_back(*rank.steps,
                               Aborted("epoch {} ended: {}", group.epoch.value, reason));
    }
    const auto worker = workers_.find(rank.control);
    if (worker == workers_.end()) continue;
    worker->second.group.reset();
    worker->second.free_from_us = now;
    out->messages.emplace_back(rank.control, Abort{term_, group.epoch, reason});
  }
}

void WorkerGroups::HoldBack(const Group& group, int32_t lost_rank, bool worked, TimeUs now) {
  for (size_t i = 0; i < group.ranks.size(); ++i) {
    const auto it = workers_.find(group.ranks[i].control);
    if (it == workers_.end()) continue;
    Worker& worker = it->second;
    worker.failures = worked ? 0 : std::min(worker.failures + 1, kFailuresMax);
    const bool accused = static_cast<int32_t>(i) == lost_rank;
    if (!accused && worker.failures <= 1) continue;
    const int32_t doublings = std::max(worker.failures - 1, 0);
    worker.free_from_us = now + std::min(options_.retry_us << doublings, options_.retry_max_us);
  }
}

void WorkerGroups::NoteLoss(const std::string& who, const std::string& reason, bool worked) {
  const std::string kind = WithoutNumbers(reason);
  if (worked) {
    stats_.losses_alike = 0;
  } else {
    stats_.losses_alike = kind == loss_kind_ ? stats_.losses_alike + 1 : 1;
  }
  loss_kind_ = kind;
  stats_.last_loss = fmt::format("{}: {:.{}}", who, reason, kLossCharsMax);
}

}  // namespace fathom::scheduler
