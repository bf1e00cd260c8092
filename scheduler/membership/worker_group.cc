#include "scheduler/membership/worker_group.h"

#include <algorithm>

#include "cluster/protocol.h"
#include "common/check.h"

namespace fathom::scheduler {
namespace {

// The start of an older process is no part of a group's start.
constexpr int64_t kAgeMaxUs = int64_t{24} * 3600 * 1'000'000;

int64_t Ms(int64_t us) { return us / 1000; }

}  // namespace

absl::Status WorkerGroups::CheckFacts(const Hello& hello) const {
  if (!hello.worker) return Invalid("Hello.worker: missing; a worker says what it is");
  const WorkerFacts& facts = *hello.worker;
  const std::pair<const char*, std::pair<int32_t, int32_t>> least[] = {
      {"tp", {facts.tp, 1}},
      {"pp", {facts.pp, 1}},
      // Room for one token of a prompt and one of an answer.
      {"limits.context_tokens", {facts.limits.context_tokens, 2}},
      {"limits.block_tokens", {facts.limits.block_tokens, 1}},
      {"limits.pool_blocks", {facts.limits.pool_blocks, 2}},
      {"limits.slots", {facts.limits.slots, 1}},
      {"limits.step_tokens", {facts.limits.step_tokens, 1}},
      {"limits.vocab", {facts.limits.vocab, 1}},
      {"limits.mixed_step_tokens", {facts.limits.mixed_step_tokens, 0}},
      {"limits.draft_max", {facts.limits.draft_max, 0}},
  };
  for (const auto& [field, value] : least) {
    if (value.first < value.second) {
      return Invalid("Hello.worker.{}: {} is not at least {}", field, value.first, value.second);
    }
  }
  if (facts.tp > kGroupRanksMax || facts.pp > kGroupRanksMax ||
      facts.tp * facts.pp > kGroupRanksMax) {
    return Invalid("Hello.worker: tp {} x pp {} ranks, a group has at most {}", facts.tp, facts.pp,
                   kGroupRanksMax);
  }
  for (const auto& [peer, other] : workers_) {
    const WorkerFacts& there = *other.hello.worker;
    if (facts.proposer != there.proposer) {
      return FailedPrecondition(
          "worker {} on {} speculates by '{}', but this cluster's workers by '{}' (empty: not at "
          "all); the ranks of a group must propose alike, so start all workers with the same "
          "--speculative-config",
          hello.process_id, facts.host, facts.proposer, there.proposer);
    }
    if (facts.weights_digest == there.weights_digest &&
        hello.config_digest == other.hello.config_digest &&
        facts.limits.block_tokens == there.limits.block_tokens &&
        facts.limits.vocab == there.limits.vocab) {
      continue;
    }
    return FailedPrecondition(
        "worker {} on {}: model {} (weights {:.12}, config {:.12}, blocks of {} tokens, vocabulary "
        "{}), but this cluster's workers serve {} (weights {:.12}, config {:.12}, {}, {}); start "
        "all workers on the same model folder and --block-size",
        hello.process_id, facts.host, facts.model, facts.weights_digest, hello.config_digest,
        facts.limits.block_tokens, facts.limits.vocab, there.model, there.weights_digest,
        other.hello.config_digest, there.limits.block_tokens, there.limits.vocab);
  }
  return absl::OkStatus();
}

void WorkerGroups::OnHello(PeerId control, Hello hello, TimeUs now, GroupActions* out) {
  const auto same = std::find_if(workers_.begin(), workers_.end(), [&](const auto& entry) {
    return entry.second.hello.process_id == hello.process_id;
  });
  // The worker reconnected before the break of its older stream was seen.
  if (same != workers_.end()) {
    const PeerId older = same->first;
    out->closes.emplace_back(older, Aborted("replaced by a newer stream of the same process"));
    OnControlDown(older, "replaced by a newer stream of the same process", now, out);
  }
  if (absl::Status status = CheckFacts(hello); !status.ok()) {
    out->log.push_back(fmt::format("worker refused: {}", Message(status)));
    out->closes.emplace_back(control, std::move(status));
    return;
  }
  NoteDifference(hello, out);
  Worker worker;
  worker.hello = std::move(hello);
  worker.startup = std::move(worker.hello.worker->startup);
  worker.started_us = now - std::min(worker.hello.worker->age_us, kAgeMaxUs);
  worker.beat_us = worker.phase_us = worker.progress_us = worker.free_from_us = now;
  workers_.emplace(control, std::move(worker));
  UpdateFacts();
  FormGroups(now, out);
}

void WorkerGroups::OnHeartbeat(PeerId control, const Heartbeat& beat, TimeUs now,
                               GroupActions* out) {
  const auto it = workers_.find(control);
  if (it == workers_.end()) return;
  Worker& worker = it->second;
  worker.beat_us = now;
  if (beat.phase != worker.phase) worker.phase_us = now;
  if (beat.progress != worker.progress) worker.progress_us = now;
  worker.phase = beat.phase;
  worker.progress = beat.progress;
  worker.collective = beat.collective;
  worker.step = beat.step;
  worker.work = beat.work;
  if (beat.phase == Phase::kDraining && worker.group) DrainIfLeft(*worker.group, out);
}

void WorkerGroups::OnControlDown(PeerId control, const std::string& reason, TimeUs now,
                                 GroupActions* out) {
  const auto it = workers_.find(control);
  if (it == workers_.end()) return;
  const std::optional<GroupId> group = it->second.group;
  const int32_t rank = it->second.rank;
  std::vector<RankReport> doing;
  if (group) doing = ReportsOf(*group, groups_.at(*group), now);
  workers_.erase(it);
  if (group) Lose(*group, rank, fmt::format("control stream ended: {}", reason), now, out, doing);
  UpdateFacts();
  FormGroups(now, out);
}

std::optional<GroupId> WorkerGroups::SeatOf(PeerId control, TermId term, EpochId epoch,
                                            int32_t rank) {
  const auto it = workers_.find(control);
  if (it != workers_.end() && it->second.group && term == term_ && it->second.rank == rank &&
      groups_.at(*it->second.group).epoch == epoch) {
    return it->second.group;
  }
  ++stats_.stale_epoch_rejected_total;
  return std::nullopt;
}

void WorkerGroups::OnExchange(PeerId control, GroupExchange exchange, GroupActions* out) {
  const std::optional<GroupId> id = SeatOf(control, term_, exchange.epoch, exchange.rank);
  if (!id) return;
  if (exchange.bytes.size() > kExchangeBytesMax) {
    out->closes.emplace_back(control, Invalid("GroupExchange.bytes: {} bytes, at most {}",
                                              exchange.bytes.size(), kExchangeBytesMax));
    return;
  }
  for (const Rank& rank : groups_.at(*id).ranks) {
    if (rank.control != control) out->messages.emplace_back(rank.control, exchange);
  }
}

void WorkerGroups::OnReady(PeerId control, const GroupReady& ready, TimeUs now, GroupActions* out) {
  const std::optional<GroupId> id = SeatOf(control, ready.term, ready.epoch, ready.rank);
  if (!id) return;
  Rank& rank = groups_.at(*id).ranks[ready.rank];
  rank.ready = true;
  rank.ready_us = now;
  workers_.at(control).startup = ready.startup;
  ComeUp(*id, now, out);
}

void WorkerGroups::OnFailed(PeerId control, const GroupFailed& failed, TimeUs now,
                            GroupActions* out) {
  const std::optional<GroupId> id = SeatOf(control, failed.term, failed.epoch, failed.rank);
  if (!id) return;
  Lose(*id, failed.rank, fmt::format("it says: {}", failed.message), now, out);
  FormGroups(now, out);
}

void WorkerGroups::OnStepsHello(PeerId steps, const StepsHello& hello, TimeUs now,
                                GroupActions* out) {
  for (auto& [id, group] : groups_) {
    if (hello.term != term_ || hello.epoch != group.epoch) continue;
    if (hello.rank < 0 || hello.rank >= static_cast<int32_t>(group.ranks.size())) break;
    Rank& rank = group.ranks[hello.rank];
    if (rank.steps || workers_.at(rank.control).hello.process_id != hello.process_id) break;
    rank.steps = steps;
    steps_peers_[steps] = {id, hello.rank};
    ComeUp(id, now, out);
    return;
  }
  ++stats_.stale_epoch_rejected_total;
  out->closes.emplace_back(
      steps, FailedPrecondition(
                 "StepsHello: term {} epoch {} rank {} of process {} is no seat of a "
                 "living group in term {}",
                 hello.term.value, hello.epoch.value, hello.rank, hello.process_id, term_.value));
}

void WorkerGroups::OnStepsDown(PeerId steps, const std::string& reason, TimeUs now,
                               GroupActions* out) {
  const auto it = steps_peers_.find(steps);
  if (it == steps_peers_.end()) return;
  const auto [id, rank] = it->second;
  steps_peers_.erase(it);
  groups_.at(id).ranks[rank].steps.reset();
  Lose(id, rank, fmt::format("steps stream ended: {}", reason), now, out);
  FormGroups(now, out);
}

std::optional<StepDone> WorkerGroups::OnResult(PeerId steps, StepResult result, TimeUs now,
                                               GroupActions* out) {
  const auto it = steps_peers_.find(steps);
  if (it == steps_peers_.end()) {
    ++stats_.stale_epoch_rejected_total;
    return std::nullopt;
  }
  const auto [id, index] = it->second;
  Group& group = groups_.at(id);
  Rank& rank = group.ranks[index];
  if (result.term != term_ || result.epoch != group.epoch || result.rank != index) {
    ++stats_.stale_epoch_rejected_total;
    return std::nullopt;
  }
  if (result.step != rank.next_result || rank.next_result >= group.next_plan) {
    Lose(id, index,
         fmt::format("it answered step {}, expected was {} of {} sent", result.step.value,
                     rank.next_result.value, group.next_plan.value),
         now, out);
    FormGroups(now, out);
    return std::nullopt;
  }
  const auto was = PlaceOf(group, index);
  ++rank.next_result.value;
  group.times.Add(index, result.timings);
  // The time of this rank begins again, and that of the ranks that may have waited for it.
  for (int32_t other = 0; other < group.shape.ranks(); ++other) {
    if (PlaceOf(group, other) > was) workers_.at(group.ranks[other].control).progress_us = now;
  }
  if (index != group.shape.answering_rank()) return std::nullopt;
  last_step_us_ = now - group.sent_us.front();
  group.sent_us.pop_front();
  return StepDone{id, std::move(result)};
}

std::vector<RankLoad> WorkerGroups::Loads() const {
  std::vector<RankLoad> loads;
  for (const auto& [id, group] : groups_) {
    if (!group.up) continue;
    for (size_t rank = 0; rank < group.times.ranks().size(); ++rank) {
      loads.push_back({id, static_cast<int32_t>(rank), group.times.ranks()[rank]});
    }
  }
  return loads;
}

std::vector<PeerId> WorkerGroups::OnPlan(GroupId id, const StepPlan& plan, TimeUs now) {
  const auto it = groups_.find(id);
  if (it == groups_.end() || !it->second.up || it->second.epoch != plan.epoch) return {};
  Group& group = it->second;
  FATHOM_CHECK(plan.term == term_ && plan.step == group.next_plan, "group {} step {}, next is {}",
               id.value, plan.step.value, group.next_plan.value);
  std::vector<PeerId> peers;
  peers.reserve(group.ranks.size());
  for (const Rank& rank : group.ranks) {
    if (rank.next_result == group.next_plan) workers_.at(rank.control).progress_us = now;
    peers.push_back(*rank.steps);
  }
  ++group.next_plan.value;
  group.sent_us.push_back(now);
  return peers;
}

void WorkerGroups::OnAbort(const GroupAbort& abort, TimeUs now, GroupActions* out) {
  const auto it = groups_.find(abort.group);
  if (it == groups_.end() || it->second.epoch != abort.epoch) return;
  Lose(abort.group, -1, abort.reason, now, out);
  FormGroups(now, out);
}

std::pair<StepId, int32_t> WorkerGroups::PlaceOf(const Group& group, int32_t rank) {
  return {group.ranks[rank].next_result, group.shape.StageOf(rank)};
}

int32_t WorkerGroups::RankBehindAll(const Group& group, int32_t rank) const {
  const auto order = [&](int32_t index) {
    return std::pair(PlaceOf(group, index), workers_.at(group.ranks[index].control).collective);
  };
  int32_t last = rank;
  for (int32_t other = 0; other < group.shape.ranks(); ++other) {
    if (order(other) < order(last)) last = other;
  }
  return last;
}

bool WorkerGroups::TellsMeetings(const Worker& worker) {
  if (worker.hello.worker->device_kind == "cpu") return false;
  const Activity doing = worker.work.activity;
  return doing == Activity::kAttention || doing == Activity::kMlp || doing == Activity::kHead;
}

std::optional<std::string> WorkerGroups::LossOf(const Worker& worker, TimeUs now) const {
  if (now - worker.beat_us > options_.heartbeat_silence_us) {
    return fmt::format("no heartbeat for {} ms", Ms(now - worker.beat_us));
  }
  if (!worker.group) return std::nullopt;
  const Group& group = groups_.at(*worker.group);
  const Rank& rank = group.ranks[worker.rank];
  if (group.up) {
    const int64_t stall_us = TellsMeetings(worker) ? options_.device_stall_us : options_.stall_us;
    if (rank.next_result == group.next_plan || now - worker.progress_us <= stall_us) {
      return std::nullopt;
    }
    // A rank that waits for another one is not the one that hangs.
    if (RankBehindAll(group, worker.rank) != worker.rank) return std::nullopt;
    return fmt::format("no progress for {} ms inside step {}", Ms(now - worker.progress_us),
                       rank.next_result.value);
  }
  if (IsLoading(worker.phase)) {
    if (now - worker.phase_us <= options_.loading_us) return std::nullopt;
    return fmt::format("{} for {} ms", NameOf(worker.phase), Ms(now - worker.phase_us));
  }
  if (rank.ready && rank.steps) return std::nullopt;
  // Connecting needs all ranks, so its time starts when the last rank has loaded.
  TimeUs since = group.formed_us;
  for (const Rank& other : group.ranks) {
    const Worker& there = workers_.at(other.control);
    if (IsLoading(there.phase)) return std::nullopt;
    since = std::max(since, there.phase_us);
  }
  if (now - since <= options_.connecting_us) return std::nullopt;
  return fmt::format("not ready after {} ms in {}", Ms(now - since), NameOf(worker.phase));
}

void WorkerGroups::OnTick(TimeUs now, GroupActions* out) {
  const int64_t late_us = last_tick_us_ == 0 ? 0 : now - last_tick_us_ - options_.tick_us;
  last_tick_us_ = now;
  // This process did not run, so its peers' silence means nothing.
  if (late_us > options_.tick_us) {
    const auto shift = [&](TimeUs& time) { time = std::min(now, time + late_us); };
    for (auto& [peer, worker] : workers_) {
      shift(worker.beat_us);
      shift(worker.phase_us);
      shift(worker.progress_us);
    }
    for (auto& [id, group] : groups_) shift(group.formed_us);
  }
  std::vector<std::pair<PeerId, std::string>> losses;
  for (const auto& [peer, worker] : workers_) {
    if (auto why = LossOf(worker, now)) losses.emplace_back(peer, *std::move(why));
  }
  for (const auto& [peer, why] : losses) {
    const auto it = workers_.find(peer);
    // If two ranks wait for each other, the first one found ends the group; both are free then.
    if (it->second.group) Lose(*it->second.group, it->second.rank, why, now, out);
    if (now - it->second.beat_us > options_.heartbeat_silence_us) {
      out->closes.emplace_back(peer, DeadlineExceeded("{}", why));
      workers_.erase(it);
    }
  }
  if (!losses.empty()) UpdateFacts();
  FormGroups(now, out);
  NoteWaiting(now, out);
}

int32_t WorkerGroups::StepsInFlight() const {
  uint64_t steps = 0;
  for (const auto& [id, group] : groups_) {
    uint64_t done = group.next_plan.value;
    for (const Rank& rank : group.ranks) done = std::min(done, rank.next_result.value);
    steps += group.next_plan.value - done;
  }
  return static_cast<int32_t>(steps);
}

void WorkerGroups::UpdateFacts() {
  facts_.groups = Stats().groups_up;
  facts_.starts.clear();
  for (const auto& [id, group] : groups_) {
    if (group.up && facts_.starts.size() < kGroupStartsMax) facts_.starts.push_back(group.start);
  }
  if (workers_.empty()) return;  // Routers keep checking against the last known facts.
  const Hello& hello = workers_.begin()->second.hello;
  facts_.model = hello.worker->model;
  facts_.config_digest = hello.config_digest;
  facts_.fingerprint = hello.worker->fingerprint;
  facts_.context_tokens = hello.worker->limits.context_tokens;
  facts_.block_tokens = hello.worker->limits.block_tokens;
  facts_.pool_blocks = hello.worker->limits.pool_blocks - 1;
  facts_.vocab = hello.worker->limits.vocab;
  facts_.device_kind = hello.worker->device_kind;
  facts_.dtype = hello.worker->dtype;
  for (const auto& [peer, worker] : workers_) {
    const EngineLimits& limits = worker.hello.worker->limits;
    facts_.context_tokens = std::min(facts_.context_tokens, limits.context_tokens);
    facts_.pool_blocks = std::min(facts_.pool_blocks, limits.pool_blocks - 1);
  }
}

WorkerGroupStats WorkerGroups::Stats() const {
  WorkerGroupStats stats = stats_;
  stats.workers = static_cast<int32_t>(workers_.size());
  stats.groups_up = static_cast<int32_t>(std::count_if(
      groups_.begin(), groups_.end(), [](const auto& entry) { return entry.second.up; }));
  return stats;
}

}  // namespace fathom::scheduler
