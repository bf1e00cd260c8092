#include "cli/explain_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace fathom::client {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kTimeBarCells = 60;
constexpr size_t kRowsMax = 8;  // Of chunks.

// What the bar shows for each part, and what the part is.
struct PartStyle {
  const char* name;
  char cell;
  const char* what;
};
constexpr PartStyle kStyles[] = {
    {"earlier", 'e', "under an earlier scheduler"},
    {"queue", 'q', "waited for its first slot"},
    {"prefill", 'p', "computed its prompt"},
    {"suspended", 's', "had no slot after a first one, or no client"},
    {"replay", 'r', "computed its tokens again after a suspension"},
    {"decode", 'd', "made tokens"},
    {"transport", 't', "the router, and messages between it and the scheduler"},
};

// What a limit of the queue means.
std::string LimitText(const std::string& limit) {
  if (limit == "slots") return "slots: all were taken (--max-num-seqs)";
  if (limit == "blocks") return "blocks: too few KV blocks were free (--kv-cache-memory)";
  if (limit == "no_group") return "no group: no workers were up that may compute it";
  if (limit == "tenant_running") {
    return "its tenant: as many of its sequences ran as may (running_max of --tenant-limits)";
  }
  if (limit == "other") return "the next step: its plans, its tokens (--max-num-batched-tokens)";
  return limit;
}

std::string EndText(const std::string& end) {
  if (end == "none") return "it is there now";
  if (end == "preempted") return "preempted: no KV block was free";
  if (end == "group_lost") return "its group of workers was lost, or left";
  if (end == "client_left") return "its client left";
  if (end == "behind") return "a router had more of its tokens";
  return end;
}

std::string MsText(int64_t us) {
  if (us < 1000) return fmt::format("{:.2f} ms", static_cast<double>(us) / 1e3);
  if (us < 100'000) return fmt::format("{:.1f} ms", static_cast<double>(us) / 1e3);
  if (us < 10'000'000) return fmt::format("{:.0f} ms", static_cast<double>(us) / 1e3);
  return fmt::format("{:.1f} s", static_cast<double>(us) / 1e6);
}

int64_t UsOf(const Explanation& from, std::string_view part) {
  const auto it = std::ranges::find(from.parts, part, &TimePart::name);
  return it == from.parts.end() ? 0 : it->us;
}

// Each part gets its share of the cells, rounded so that all cells are used.
std::string Bar(const Explanation& from) {
  std::string bar;
  int64_t before = 0;
  for (const PartStyle& style : kStyles) {
    before += UsOf(from, style.name);
    const int64_t end = from.whole_us > 0 ? before * kTimeBarCells / from.whole_us : 0;
    bar.append(static_cast<size_t>(std::max<int64_t>(0, end - std::ssize(bar))), style.cell);
  }
  return bar;
}

void AddWaits(const std::vector<TimePart>& waits, std::string* text) {
  for (const TimePart& wait : waits) {
    if (wait.us == 0) continue;
    *text += fmt::format("      {:>10}  behind {}\n", MsText(wait.us), LimitText(wait.name));
  }
}

void AddParts(const Explanation& from, std::string* text) {
  *text += fmt::format("  [{:<{}}]\n", Bar(from), kTimeBarCells);
  for (const PartStyle& style : kStyles) {
    const int64_t us = UsOf(from, style.name);
    if (us == 0) continue;
    const double share = 100 * static_cast<double>(us) / static_cast<double>(from.whole_us);
    *text += fmt::format("  {} {:<9} {:>10} {:>5.1f} %  {}\n", style.cell, style.name, MsText(us),
                         share, style.what);
    if (style.cell == 'q') AddWaits(from.queue_behind, text);
    if (style.cell == 's') AddWaits(from.suspended_behind, text);
  }
  *text += fmt::format("    {:<9} {:>10}\n", "whole", MsText(from.whole_us));
}

void AddHead(const Explanation& from, std::string* text) {
  const bool runs = from.outcome == "RUNNING";
  *text += fmt::format("request {}: {}", from.request_id, runs ? "it runs" : from.outcome);
  if (runs && !from.phase.empty()) *text += fmt::format(", {}", from.phase);
  if (from.ended_ago_us) *text += fmt::format(", ended {} ago", MsText(*from.ended_ago_us));
  *text += "\n";
  if (!from.message.empty()) *text += fmt::format("  {}: {}\n", from.reason, from.message);
  *text += fmt::format("  {} prompt tokens ({} cached), {} generated of at most {}",
                       from.usage.prompt_tokens, from.usage.cached_tokens,
                       from.usage.completion_tokens, from.max_tokens);
  if (from.sequences > 1) {
    *text +=
        fmt::format(" in each of {} sequences; the times are of the slowest one", from.sequences);
  }
  *text += "\n";
}

void AddStays(const Explanation& from, std::string* text) {
  if (from.stays.empty()) return;
  *text += fmt::format("stays in a slot: {}; suspended {} times, of which {} preempted\n",
                       from.stays_total, from.suspensions, from.preemptions);
  for (const Explanation::Stay& stay : from.stays) {
    *text += fmt::format("  at {:>10} for {:>10}  group {} epoch {}  {}\n", MsText(stay.at_us),
                         MsText(stay.us), stay.group, stay.epoch, EndText(stay.end));
  }
}

void AddChunks(const Explanation& from, std::string* text) {
  if (from.chunks.empty()) return;
  *text += fmt::format("chunks of prefill: {}\n", from.chunks_total);
  for (size_t i = 0; i < std::min(from.chunks.size(), kRowsMax); ++i) {
    const PromptChunk& chunk = from.chunks[i];
    *text += fmt::format("  at {:>10} for {:>10}  {} tokens{}\n", MsText(chunk.at_us),
                         MsText(chunk.us), chunk.tokens,
                         chunk.chunks > 1 ? fmt::format(" in {} chunks", chunk.chunks) : "");
  }
  if (from.chunks.size() > kRowsMax) *text += "  (the others are in --json)\n";
}

void AddGaps(const Explanation& from, std::string* text) {
  if (from.gaps.empty()) return;
  *text += "longest waits for a token:";
  for (size_t i = 0; i < from.gaps.size(); ++i) {
    *text += fmt::format("{} {} before token {}", i == 0 ? "" : ",", MsText(from.gaps[i].us),
                         from.gaps[i].position);
  }
  *text += "\n";
}

ordered_json PartsJson(const std::vector<TimePart>& parts) {
  ordered_json json = ordered_json::object();
  for (const TimePart& part : parts) json[part.name] = part.us;
  return json;
}

void AddListsJson(const Explanation& from, ordered_json* json) {
  ordered_json stays = ordered_json::array();
  for (const Explanation::Stay& stay : from.stays) {
    stays.push_back({{"group", stay.group},
                     {"epoch", stay.epoch},
                     {"at_us", stay.at_us},
                     {"us", stay.us},
                     {"end", stay.end},
                     {"prefill_us", stay.prefill_us}});
  }
  ordered_json chunks = ordered_json::array();
  for (const PromptChunk& chunk : from.chunks) {
    chunks.push_back({{"at_us", chunk.at_us},
                      {"us", chunk.us},
                      {"tokens", chunk.tokens},
                      {"chunks", chunk.chunks}});
  }
  ordered_json gaps = ordered_json::array();
  for (const TokenGap& gap : from.gaps)
    gaps.push_back({{"us", gap.us}, {"position", gap.position}});
  (*json)["stays"] = std::move(stays);
  (*json)["chunks"] = std::move(chunks);
  (*json)["gaps"] = std::move(gaps);
}

}  // namespace

std::string ExplainText(const Explanation& from) {
  std::string text;
  AddHead(from, &text);
  if (from.whole_us > 0) AddParts(from, &text);
  if (!from.scheduler_known) {
    text += "the scheduler's times of this request are not known here: ";
    text += from.submits == 0 ? "it did not get to a scheduler\n"
                              : "the scheduler does not hold it, or did not answer\n";
  }
  if (from.submits > 1) {
    text +=
        fmt::format("the router submitted it {} times: a stream broke, or a new scheduler leads\n",
                    from.submits);
  }
  if (from.first_token_seen_us) {
    text += fmt::format("the first token was here after {}\n", MsText(*from.first_token_seen_us));
  }
  AddStays(from, &text);
  AddChunks(from, &text);
  AddGaps(from, &text);
  return text;
}

std::string ExplainJson(const Explanation& from) {
  ordered_json json = {{"request_id", from.request_id},
                       {"model", from.model},
                       {"outcome", from.outcome},
                       {"phase", from.phase},
                       {"reason", from.reason},
                       {"message", from.message},
                       {"whole_us", from.whole_us},
                       {"parts_us", PartsJson(from.parts)},
                       {"scheduler_known", from.scheduler_known},
                       {"queue_behind_us", PartsJson(from.queue_behind)},
                       {"suspended_behind_us", PartsJson(from.suspended_behind)},
                       {"stays_total", from.stays_total},
                       {"chunks_total", from.chunks_total},
                       {"suspensions", from.suspensions},
                       {"preemptions", from.preemptions},
                       {"submits", from.submits},
                       {"prompt_tokens", from.usage.prompt_tokens},
                       {"completion_tokens", from.usage.completion_tokens},
                       {"cached_tokens", from.usage.cached_tokens},
                       {"max_tokens", from.max_tokens},
                       {"sequences", from.sequences}};
  if (from.first_token_us) json["first_token_us"] = *from.first_token_us;
  if (from.last_token_us) json["last_token_us"] = *from.last_token_us;
  if (from.first_token_seen_us) json["first_token_seen_us"] = *from.first_token_seen_us;
  if (from.ended_ago_us) json["ended_ago_us"] = *from.ended_ago_us;
  AddListsJson(from, &json);
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace fathom::client
