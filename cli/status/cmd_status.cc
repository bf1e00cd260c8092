#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/startup_report.h"
#include "cli/status/watch.h"
#include "common/address.h"
#include "common/output.h"
#include "common/process.h"

namespace fathom::client {
namespace {

using Json = nlohmann::ordered_json;

Json RankJson(const RankStatus& rank) {
  return {{"group", rank.group},
          {"rank", rank.rank},
          {"process_id", rank.process_id},
          {"host", rank.host},
          {"phase", rank.phase},
          {"step", rank.step},
          {"activity", rank.activity},
          {"layer", rank.layer ? Json(*rank.layer) : Json(nullptr)},
          {"step_collectives", rank.step_collectives},
          {"still_ms", rank.still_ms},
          {"waits_for", rank.waits_for ? Json(*rank.waits_for) : Json(nullptr)},
          {"doing", rank.doing},
          {"address", rank.address},
          {"card", rank.card}};
}

Json StartJson(const GroupTimeline& start) {
  Json ranks = Json::array();
  for (const RankTimeline& rank : start.ranks) {
    Json parts = Json::array();
    for (const StartPart& part : rank.parts) {
      parts.push_back({{"phase", part.phase}, {"at_us", part.at_us}, {"bytes", part.bytes}});
    }
    ranks.push_back({{"rank", rank.rank},
                     {"process_id", rank.process_id},
                     {"host", rank.host},
                     {"parts", std::move(parts)}});
  }
  return {{"group", start.group},
          {"epoch", start.epoch},
          {"total_us", start.total_us},
          {"slowest_rank", start.slowest_rank},
          {"ranks", std::move(ranks)}};
}

}  // namespace

nlohmann::ordered_json StatusJson(const ClusterStatus& status) {
  Json ranks = Json::array(), starts = Json::array();
  for (const RankStatus& rank : status.ranks) ranks.push_back(RankJson(rank));
  for (const GroupTimeline& start : status.starts) starts.push_back(StartJson(start));
  return {{"ready", status.ready},
          {"reason", status.reason},
          {"model", status.model},
          {"build", status.build},
          {"term", status.term},
          {"groups", status.groups},
          {"requests_running", status.requests_running},
          {"requests_waiting", status.requests_waiting},
          {"blocks_total", status.blocks_total},
          {"blocks_used", status.blocks_used},
          {"sessions", status.sessions},
          {"fingerprint", status.fingerprint},
          {"context_tokens", status.context_tokens},
          {"last_loss", status.last_loss},
          {"losses_alike", status.losses_alike},
          {"waiting", status.waiting},
          {"apart", status.apart},
          {"ranks", std::move(ranks)},
          {"starts", std::move(starts)}};
}

namespace {

void PrintStatus(const ClusterStatus& status) {
  PrintAnswer("{}{}\n", status.ready ? "ready" : "not ready: ", status.ready ? "" : status.reason);
  PrintAnswer("model        {} ({} tokens of context)\n", status.model, status.context_tokens);
  PrintAnswer("cluster      {} groups, term {}, build {}\n", status.groups, status.term,
              status.build);
  PrintAnswer("requests     {} running, {} waiting, {} sessions at this router\n",
              status.requests_running, status.requests_waiting, status.sessions);
  PrintAnswer("kv cache     {} of {} blocks used\n", status.blocks_used, status.blocks_total);
  PrintAnswer("fingerprint  {}\n", status.fingerprint);
  if (!status.last_loss.empty()) PrintAnswer("last loss    {}\n", status.last_loss);
  if (!status.waiting.empty()) PrintAnswer("waiting      {}\n", status.waiting);
  for (const RankStatus& rank : status.ranks) {
    PrintAnswer("group {} rank {} on {}: {}\n", rank.group, rank.rank, rank.host, rank.doing);
  }
}

// The scheduler's /metrics, if nothing else is said: port 8002 of the first router's host.
std::string SchedulerMetrics(const ServerFlag& server) {
  const auto first = ParseHostPort(
      SplitCommas(server.servers).empty() ? std::string() : SplitCommas(server.servers).front());
  constexpr int32_t kSchedulerMetricsPort = 8002;
  return first.ok() ? FormatHostPort(first->host, kSchedulerMetricsPort) : "";
}

}  // namespace

int RunStatus(int argc, const char* const* argv) {
  Flags flags("fathom status",
              "What the cluster does now; exit 0 only when it can answer, else 69.");
  ServerFlag server;
  WatchOptions watch;
  bool json = false, startup = false, live = false;
  server.Add(flags);
  flags.Group("Output");
  flags.Add("--json", &json, "Print one JSON object (with --watch: one for each reading)");
  flags.Add("--startup", &startup, "Also print how the last start of each group went");
  flags.Group("Live view");
  flags.Add("--watch", &live, "Look again and again, until Ctrl-C; on a terminal one screen");
  flags.Add("--interval-ms", &watch.interval_ms, 100, 3'600'000, "Time between two readings");
  flags.Add("--count", &watch.count, 0, INT32_MAX, "End after so many readings; 0: never");
  flags.Add("--scheduler-metrics", &watch.scheduler_metrics,
            "HOST:PORT of the scheduler's /metrics, for tokens per second and the queue's reasons "
            "(default: port 8002 of the router's host)");
  if (const auto code = flags.Parse(argc, argv)) return *code;

  if (live) BlockStopSignals();  // Before the client has threads.
  const auto client = server.Dial();
  if (!client.ok()) return Fail("status", client.status());
  if (live) {
    watch.json = json;
    if (watch.scheduler_metrics.empty()) watch.scheduler_metrics = SchedulerMetrics(server);
    return Watch(**client, watch);
  }
  const auto got = (*client)->GetStatus(/*deadline_ms=*/5000);
  if (!got.ok()) {
    Fail("status", got.status());
    return kExitUnavailable;
  }
  const ClusterStatus& status = *got;
  if (json) {
    PrintAnswer("{}\n", StatusJson(status).dump());
  } else {
    PrintStatus(status);
    if (startup && status.starts.empty()) PrintAnswer("no group is up\n");
    for (const GroupTimeline& start : status.starts) {
      if (startup) PrintAnswer("{}", TextOf(start));
    }
  }
  return status.ready ? kExitOk : kExitUnavailable;
}

}  // namespace fathom::client
