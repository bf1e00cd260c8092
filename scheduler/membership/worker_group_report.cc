// What WorkerGroups tells about its workers: what each rank does, how workers differ, what the
// start of a group waits for, and why workers are in no group.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "scheduler/membership/worker_group.h"

namespace fathom::scheduler {
namespace {

// Heartbeats come every 250 ms, so the collectives of two ranks may be compared only after a rank
// was still for longer.
constexpr int64_t kWaitsUs = 1'000'000;
constexpr int kWaitingCharsMax = 4096;

double Seconds(int64_t us) { return static_cast<double>(us) * 1e-6; }

}  // namespace

// ---- What ranks do ----

int64_t WorkerGroups::StillUs(const Group& group, int32_t rank, TimeUs now) const {
  const Rank& seat = group.ranks[static_cast<size_t>(rank)];
  if (!group.up || seat.next_result == group.next_plan) return 0;
  return std::max<int64_t>(0, now - workers_.at(seat.control).progress_us);
}

int32_t WorkerGroups::WaitsFor(const Group& group, int32_t rank, int64_t still_us) const {
  const auto worker_of = [&](int32_t index) -> const Worker& {
    return workers_.at(group.ranks[static_cast<size_t>(index)].control);
  };
  if (!group.up) {
    if (worker_of(rank).phase != Phase::kConnecting) return -1;
    for (const bool loading : {true, false}) {
      for (int32_t other = 0; other < group.shape.ranks(); ++other) {
        if (other == rank || group.ranks[static_cast<size_t>(other)].ready) continue;
        if (!loading || IsLoading(worker_of(other).phase)) return other;
      }
    }
    return -1;
  }
  if (still_us < kWaitsUs) return -1;
  const int32_t last = RankBehindAll(group, rank);
  return last == rank ? -1 : last;
}

std::vector<RankReport> WorkerGroups::ReportsOf(GroupId id, const Group& group, TimeUs now) const {
  std::vector<RankReport> reports;
  for (int32_t rank = 0; rank < group.shape.ranks(); ++rank) {
    const Worker& worker = workers_.at(group.ranks[static_cast<size_t>(rank)].control);
    const int64_t still_us = StillUs(group, rank, now);
    reports.push_back({.group = id.value,
                       .rank = rank,
                       .process_id = worker.hello.process_id,
                       .host = worker.hello.worker->host,
                       .phase = worker.phase,
                       .step = worker.step,
                       .work = worker.work,
                       .still_us = still_us,
                       .waits_for = WaitsFor(group, rank, still_us),
                       .address = worker.hello.worker->health_address,
                       .card = worker.hello.worker->card});
  }
  return reports;
}

std::vector<RankReport> WorkerGroups::Reports(TimeUs now) const {
  std::vector<RankReport> all;
  for (const auto& [id, group] : groups_) {
    for (RankReport& report : ReportsOf(id, group, now)) {
      if (all.size() == kRankReportsMax) return all;
      all.push_back(std::move(report));
    }
  }
  return all;
}

// ---- How workers differ ----

void WorkerGroups::NoteDifference(const Hello& hello, GroupActions* out) const {
  const WorkerFacts& mine = *hello.worker;
  for (const auto& [peer, other] : workers_) {
    const WorkerFacts& theirs = *other.hello.worker;
    std::vector<std::string> parts;
    const auto compare = [&](const char* what, const auto& a, const auto& b, const char* advice) {
      if (a != b) parts.push_back(fmt::format("{} {} here and {} there ({})", what, a, b, advice));
    };
    compare("dtype", mine.dtype, theirs.dtype, "no common group; give all workers one --dtype");
    compare("device kind", mine.device_kind, theirs.device_kind,
            "no common group; a group has one kind, start a whole group of each");
    compare("recipe", mine.recipe, theirs.recipe, "no common group; run one build");
    compare("tensor parallelism", mine.tp, theirs.tp,
            "no common group; give all workers one --tensor-parallel-size");
    compare("stages", mine.pp, theirs.pp,
            "no common group; give all workers one --pipeline-parallel-size");
    if (mine.recipe == theirs.recipe) {
      compare("build", hello.build, other.hello.build,
              "the recipe is the same, so answers keep their bits; run one build");
    }
    if (mine.device_kind == theirs.device_kind) {
      compare("card", mine.card, theirs.card,
              "a group is as slow as its slowest card; answers keep their bits, since device kind "
              "and recipe are equal");
    }
    if (parts.empty()) continue;
    out->log.push_back(fmt::format("worker {} on {} differs from worker {} on {}: {}",
                                   hello.process_id, mine.host, other.hello.process_id, theirs.host,
                                   fmt::join(parts, "; ")));
    return;
  }
}

// ---- What is waited for ----

std::string WorkerGroups::StartText(GroupId id, const Group& group, TimeUs now) const {
  std::vector<std::string> parts;
  for (int32_t rank = 0; rank < group.shape.ranks(); ++rank) {
    const Rank& seat = group.ranks[static_cast<size_t>(rank)];
    if (seat.ready && seat.steps) continue;
    const Worker& worker = workers_.at(seat.control);
    parts.push_back(fmt::format("rank {} (process {} on {}) in {} for {:.1f} s", rank,
                                worker.hello.process_id, worker.hello.worker->host,
                                NameOf(worker.phase), Seconds(now - worker.phase_us)));
  }
  return fmt::format("group {} of {} ranks is not up {:.1f} s after it was formed: {}", id.value,
                     group.shape.ranks(), Seconds(now - group.formed_us), fmt::join(parts, ", "));
}

std::vector<std::string> WorkerGroups::FreeTexts(TimeUs now, bool* apart) const {
  struct Free {
    std::vector<const Worker*> workers;
    std::map<std::string, std::vector<std::string>> ranks_by_host;
    std::set<int32_t> ranks;
  };
  using Kind = std::tuple<std::string, int32_t, int32_t>;
  std::map<Kind, Free> kinds;
  for (const auto& [peer, worker] : workers_) {
    if (!IsFree(worker, now)) continue;
    const WorkerFacts& facts = *worker.hello.worker;
    Free& free = kinds[{facts.fingerprint, facts.tp, facts.pp}];
    free.workers.push_back(&worker);
    std::string place = facts.host;
    if (!facts.machine.empty()) place += fmt::format(" (machine {:.8}", facts.machine);
    if (!facts.machine.empty() && facts.device_kind == "cpu") {
      place += fmt::format(", /dev/shm {}", facts.shared_memory);
    }
    if (!facts.machine.empty()) place += ")";
    const int32_t ranks = facts.tp * facts.pp;
    const bool known = facts.preferred_rank >= 0;
    if (known) free.ranks.insert(facts.preferred_rank % ranks);
    free.ranks_by_host[place].push_back(
        known ? fmt::format("rank {}", facts.preferred_rank)
              : fmt::format("process {} without --rank", worker.hello.process_id));
  }
  std::vector<std::string> texts;
  for (const auto& [kind, free] : kinds) {
    const WorkerFacts& facts = *free.workers.front()->hello.worker;
    const int32_t ranks = facts.tp * facts.pp;
    std::vector<std::string> hosts;
    for (const auto& [host, names] : free.ranks_by_host) {
      hosts.push_back(fmt::format("{} on {}", fmt::join(names, ", "), host));
    }
    std::string text = fmt::format("{} free workers for groups of {} (tp {}, pp {}, {}, {}): {}",
                                   free.workers.size(), ranks, facts.tp, facts.pp,
                                   facts.device_kind, facts.dtype, fmt::join(hosts, "; "));
    if (std::ssize(free.workers) >= ranks && hosts.size() > 1) {
      *apart = true;
      text += facts.device_kind == "cpu"
                  ? "; on the CPU the ranks of a group share memory, so they form no group: start "
                    "all of a group's ranks on one host, where they see the same /dev/shm (in "
                    "containers: --ipc), or use -tp 1 -pp 1 and a copy of the model on each host"
                  : "; GPUs of several hosts form a group only by --rank: give group g the ranks "
                    "from g times its size on, each once";
    } else {
      std::vector<std::string> missing;
      for (int32_t rank = 0; rank < ranks; ++rank) {
        if (!free.ranks.contains(rank)) missing.push_back(std::to_string(rank));
      }
      const bool all_known = std::ssize(free.ranks) == std::ssize(free.workers);
      text += all_known
                  ? fmt::format("; missing: rank {}", fmt::join(missing, ", "))
                  : fmt::format("; missing: {} workers", ranks - std::ssize(free.workers) % ranks);
    }
    texts.push_back(std::move(text));
  }
  return texts;
}

void WorkerGroups::NoteWaiting(TimeUs now, GroupActions* out) {
  stats_.apart = false;
  std::vector<std::string> texts = FreeTexts(now, &stats_.apart);
  int64_t longest_us = 0;
  for (const auto& [id, group] : groups_) {
    if (!group.up) texts.push_back(StartText(id, group, now));
    for (int32_t rank = 0; rank < group.shape.ranks(); ++rank) {
      longest_us = std::max(longest_us, StillUs(group, rank, now));
    }
  }
  stats_.longest_still_us = longest_us;
  waiting_ = fmt::format("{:.{}}", fmt::format("{}", fmt::join(texts, "; ")), kWaitingCharsMax);
  if (waiting_.empty()) {
    next_note_us_ = 0;
    return;
  }
  if (next_note_us_ == 0) {
    note_wait_us_ = options_.note_us;
    next_note_us_ = now + note_wait_us_;
  } else if (now >= next_note_us_) {
    out->log.push_back("waiting: " + waiting_);
    note_wait_us_ = std::min(2 * note_wait_us_, options_.note_max_us);
    next_note_us_ = now + note_wait_us_;
  }
}

}  // namespace fathom::scheduler
