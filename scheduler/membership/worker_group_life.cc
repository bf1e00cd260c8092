// The life of groups: which free workers form one, and how long its workers wait after it is lost.
#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

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

// What the ranks did: the lost one first, then some of the others.
std::string WorkOfRanks(const std::vector<RankReport>& reports, int32_t lost_rank) {
  constexpr int kOthersMax = 8;
  std::string text;
  int others = 0;
  const auto add = [&](const RankReport& report) {
    if (!text.empty()) text += "; ";
    text += fmt::format("rank {}: {}", report.rank, DescribeWork(report));
  };
  for (const RankReport& report : reports) {
    if (report.rank == lost_rank) add(report);
  }
  for (const RankReport& report : reports) {
    if (report.rank != lost_rank && others++ < kOthersMax) add(report);
  }
  return others > kOthersMax ? fmt::format("{}; and {} more", text, others - kOthersMax) : text;
}

// Workers with equal texts share what the ranks of a group need: shared memory on the CPU, and one
// host for the peer memory of GPUs.
std::string PlaceText(const WorkerFacts& facts) {
  if (facts.machine.empty()) return facts.host;
  return facts.device_kind == "cpu" ? facts.machine + " " + facts.shared_memory : facts.machine;
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
  // All ranks of a group must compute the same bits (fingerprint) and have the same shape and
  // place.
  using Kind = std::tuple<std::string, std::string, int32_t, int32_t>;
  std::map<Kind, std::vector<PeerId>> free;
  for (const auto& [peer, worker] : workers_) {
    if (!IsFree(worker, now)) continue;
    const WorkerFacts& facts = *worker.hello.worker;
    free[{facts.fingerprint, PlaceText(facts), facts.tp, facts.pp}].push_back(peer);
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
  FormAcrossHosts(now, out);
}

bool WorkerGroups::IsFree(const Worker& worker, TimeUs now) const {
  return !worker.group && worker.free_from_us <= now && worker.phase != Phase::kDraining;
}

// The workers of a host may come before those of the others, and a group on one host is faster. So
// workers of several hosts are placed in a group only if their ranks fill it: rank r of them is in
// group r / ranks.
void WorkerGroups::FormAcrossHosts(TimeUs now, GroupActions* out) {
  using Kind = std::tuple<std::string, int32_t, int32_t, int32_t>;
  std::map<Kind, std::map<int32_t, PeerId>> free;
  for (const auto& [peer, worker] : workers_) {
    const WorkerFacts& facts = *worker.hello.worker;
    if (!IsFree(worker, now) || facts.device_kind == "cpu" || facts.preferred_rank < 0) continue;
    const int32_t ranks = facts.tp * facts.pp;
    free[{facts.fingerprint, facts.tp, facts.pp, facts.preferred_rank / ranks}].emplace(
        facts.preferred_rank % ranks, peer);
  }
  for (const auto& [kind, by_rank] : free) {
    if (std::ssize(by_rank) < std::get<1>(kind) * std::get<2>(kind)) continue;
    std::vector<PeerId> controls;
    for (const auto& [rank, peer] : by_rank) controls.push_back(peer);
    Form(controls, now, out);
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
    seat.peers.push_back(
        {hello.process_id, hello.worker->host, hello.worker->machine, hello.worker->shared_memory});
    seat.limits.context_tokens = std::min(seat.limits.context_tokens, limits.context_tokens);
    seat.limits.pool_blocks = std::min(seat.limits.pool_blocks, limits.pool_blocks);
    seat.limits.slots = std::min(seat.limits.slots, limits.slots);
    seat.limits.step_tokens = std::min(seat.limits.step_tokens, limits.step_tokens);
    seat.limits.mixed_step_tokens =
        std::min(seat.limits.mixed_step_tokens, limits.mixed_step_tokens);
    seat.limits.host_blocks = std::min(seat.limits.host_blocks, limits.host_blocks);
    seat.limits.draft_max = std::min(seat.limits.draft_max, limits.draft_max);
  }
  seat.blocks = seat.limits.pool_blocks;
  group.shape = seat.shape();
  group.times = RankTimes(group.shape);
  group.limits = {
      .blocks = seat.blocks,
      .block_tokens = seat.limits.block_tokens,
      .slots = seat.limits.slots,
      .step_tokens = seat.limits.step_tokens,
      .context_tokens = seat.limits.context_tokens,
      // One for each stage, and one that is there when the first stage is done.
      .plans_in_flight = seat.pp + 1,
      .mixed_step_tokens = seat.limits.mixed_step_tokens,
      .lanes = seat.pp,
      .protocol = kProtocolMax,
      .host_blocks = seat.limits.host_blocks,
      .draft_max = seat.limits.draft_max,
      .grammar_vocabulary = workers_.at(controls.front()).hello.worker->grammar_vocabulary};
  for (const PeerId control : controls) {
    Worker& worker = workers_.at(control);
    group.limits.protocol = std::min(group.limits.protocol, CommonProtocol(worker.hello));
    // Ranks mask alike, or not at all.
    if (worker.hello.worker->grammar_vocabulary != group.limits.grammar_vocabulary) {
      group.limits.grammar_vocabulary.clear();
    }
    worker.group = id;
    worker.rank = seat.rank = static_cast<int32_t>(group.ranks.size());
    worker.progress_us = now;
    group.ranks.push_back({control, std::nullopt, false, 0, StepId{0}});
    out->messages.emplace_back(control, seat);
  }
  if (group.limits.protocol < kProtocol2) {
    group.limits.draft_max = group.limits.host_blocks = 0;
    group.limits.grammar_vocabulary.clear();
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
  group.start = StartOf(id, group, now);
  const RankStart& slowest = group.start.ranks[SlowestOf(group.start)];
  out->log.push_back(fmt::format(
      "group {} started in {:.1f} s; rank {} was ready last, its longest "
      "part was {}",
      id.value, static_cast<double>(group.start.us) * 1e-6, slowest.rank, LongestPart(slowest)));
  UpdateFacts();
  DrainIfLeft(id, out);
}

void WorkerGroups::DrainIfLeft(GroupId id, GroupActions* out) {
  Group& group = groups_.at(id);
  if (!group.up || group.draining) return;
  for (const Rank& rank : group.ranks) {
    const auto worker = workers_.find(rank.control);
    if (worker == workers_.end() || worker->second.phase != Phase::kDraining) continue;
    group.draining = true;
    out->drains.push_back({id, group.epoch});
    out->log.push_back(fmt::format(
        "group {} drains: rank {} (process {} on {}) leaves; it takes no more sequences", id.value,
        worker->second.rank, worker->second.hello.process_id, worker->second.hello.worker->host));
    return;
  }
}

void WorkerGroups::OnDrained(const GroupDrained& drained, TimeUs now, GroupActions* out) {
  const auto it = groups_.find(drained.group);
  if (it == groups_.end() || it->second.epoch != drained.epoch) return;
  const Group group = std::move(it->second);
  groups_.erase(it);
  Dissolve(group, "it is drained", now, out);
  out->lost.push_back({drained.group, drained.epoch});
  out->log.push_back(fmt::format("group {} is drained: term {} epoch {}, {} steps",
                                 drained.group.value, term_.value, group.epoch.value,
                                 group.next_plan.value));
  UpdateFacts();
  FormGroups(now, out);
}

GroupStart WorkerGroups::StartOf(GroupId id, const Group& group, TimeUs now) {
  TimeUs begin_us = group.formed_us;
  for (const Rank& rank : group.ranks) {
    const Worker& worker = workers_.at(rank.control);
    if (!worker.was_seated) begin_us = std::min(begin_us, worker.started_us);
  }
  GroupStart start{id.value, group.epoch, now - begin_us, {}};
  for (const Rank& rank : group.ranks) {
    Worker& worker = workers_.at(rank.control);
    worker.was_seated = true;
    RankStart& part = start.ranks.emplace_back(
        RankStart{worker.rank, worker.hello.process_id, worker.hello.worker->host, {}});
    for (const StartMark& mark : worker.startup) {
      const TimeUs at_us = worker.started_us + mark.at_us - begin_us;
      // An earlier one is of an earlier group. A message takes time, so none is later than now.
      if (at_us >= 0) part.marks.push_back({mark.phase, std::min(at_us, start.us), mark.bytes});
    }
    const bool told = !part.marks.empty() && part.marks.back().phase == StartPhase::kReady;
    if (!told) part.marks.push_back({StartPhase::kReady, rank.ready_us - begin_us, 0});
    std::stable_sort(part.marks.begin(), part.marks.end(),
                     [](const StartMark& a, const StartMark& b) { return a.at_us < b.at_us; });
    if (part.marks.size() > kStartMarksMax) part.marks.resize(kStartMarksMax);
  }
  return start;
}

void WorkerGroups::Lose(GroupId id, int32_t lost_rank, const std::string& reason, TimeUs now,
                        GroupActions* out, const std::optional<std::vector<RankReport>>& doing) {
  const auto it = groups_.find(id);
  std::vector<RankReport> reports = doing ? *doing : ReportsOf(id, it->second, now);
  // The name of a rank that the lost one waited for would be taken for the culprit's.
  if (lost_rank >= 0) reports[static_cast<size_t>(lost_rank)].waits_for = -1;
  const Group group = std::move(it->second);
  groups_.erase(it);
  std::string who = "no rank in particular";
  if (lost_rank >= 0) {
    who = fmt::format("rank {} (process {})", lost_rank,
                      reports[static_cast<size_t>(lost_rank)].process_id);
  }
  uint64_t done = group.next_plan.value;
  for (const Rank& rank : group.ranks) done = std::min(done, rank.next_result.value);
  const bool worked = done > 0 || (group.up && now - group.up_us >= options_.healthy_us);
  Dissolve(group, reason, now, out);
  HoldBack(group, lost_rank, worked, now);
  const std::string did =
      lost_rank >= 0 ? DescribeWork(reports[static_cast<size_t>(lost_rank)]) : std::string();
  NoteLoss(lost_rank >= 0 ? fmt::format("rank {}", lost_rank) : "no rank in particular", reason,
           did, worked);
  out->log.push_back(
      fmt::format("group {} lost{}: {}: {}; term {} epoch {}, {} steps sent, {} done by every "
                  "rank; last heard: {}",
                  id.value, group.up ? "" : " before it was up", who, reason, term_.value,
                  group.epoch.value, group.next_plan.value, done, WorkOfRanks(reports, lost_rank)));
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

void WorkerGroups::NoteLoss(const std::string& who, const std::string& reason,
                            const std::string& did, bool worked) {
  const std::string kind = WithoutNumbers(reason);
  if (worked) {
    stats_.losses_alike = 0;
  } else {
    stats_.losses_alike = kind == loss_kind_ ? stats_.losses_alike + 1 : 1;
  }
  loss_kind_ = kind;
  stats_.last_loss = fmt::format("{}: {:.{}}", who, reason, kLossCharsMax);
  if (!did.empty()) stats_.last_loss += "; last heard: " + did;
}

}  // namespace fathom::scheduler
