#include "cli/status/status_view.h"

#include <fmt/format.h>

#include <algorithm>

namespace fathom::client {
namespace {

constexpr size_t kLossesMax = 5;
constexpr int kBarCells = 30;

std::optional<double> RateOf(const std::optional<double>& before, const std::optional<double>& now,
                             double seconds) {
  if (!before || !now || *now < *before || seconds <= 0) return std::nullopt;
  return (*now - *before) / seconds;
}

// Steps of all groups: those of each group's rank 0.
std::optional<double> StepsOf(const ClusterReading& reading) {
  if (!reading.status) return std::nullopt;
  double steps = 0;
  for (const RankStatus& rank : reading.status->ranks) {
    if (rank.rank == 0) steps += static_cast<double>(rank.step);
  }
  return steps;
}

std::string RateText(const std::optional<double>& rate) {
  return rate ? fmt::format("{:.1f}", *rate) : "-";
}

std::string Bar(int64_t used, int64_t total) {
  const auto filled = total > 0 ? static_cast<size_t>(used * kBarCells / total) : 0;
  return "[" + std::string(std::min<size_t>(filled, kBarCells), '#') +
         std::string(kBarCells - std::min<size_t>(filled, kBarCells), '.') + "]";
}

std::string QueueText(const ClusterReading& now) {
  std::string reasons;
  for (const auto& [reason, count] : now.waiting_by_reason) {
    if (count > 0)
      reasons += fmt::format("{}{:.0f} for {}", reasons.empty() ? "" : ", ", count, reason);
  }
  return reasons.empty() ? "" : " (" + reasons + ")";
}

// Without control characters, cut at `width` bytes and never within a character.
std::string Fit(const std::string& text, size_t width) {
  std::string clean;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) clean += c;
  }
  if (clean.size() <= width) return clean;
  size_t end = width;
  while (end > 0 && (static_cast<unsigned char>(clean[end]) & 0xC0) == 0x80) --end;
  return clean.substr(0, end);
}

void AddCluster(const ClusterReading& now, const ClusterReading* before,
                std::vector<std::string>* lines) {
  const ClusterStatus& status = *now.status;
  lines->push_back(status.ready ? "ready" : "not ready: " + status.reason);
  lines->push_back(fmt::format("model     {} ({} tokens of context), fingerprint {}", status.model,
                               status.context_tokens, status.fingerprint));
  lines->push_back(fmt::format("cluster   {} groups, {} ranks, term {}, build {}", status.groups,
                               status.ranks.size(), status.term, status.build));
  lines->push_back(fmt::format("requests  {} running, {} waiting{}, {} sessions at this router",
                               status.requests_running, status.requests_waiting, QueueText(now),
                               status.sessions));
  lines->push_back(fmt::format("blocks    {} {} of {} used",
                               Bar(status.blocks_used, status.blocks_total), status.blocks_used,
                               status.blocks_total));
  const Rates rates = before != nullptr ? RatesOf(*before, now) : Rates{};
  std::string speed = fmt::format("speed     {} tokens/s generated, {} prompt tokens/s, {} steps/s",
                                  RateText(rates.generated_per_s), RateText(rates.prompt_per_s),
                                  RateText(rates.steps_per_s));
  if (!now.metrics_error.empty()) speed += "; " + now.metrics_error;
  lines->push_back(speed);
  if (!status.waiting.empty()) lines->push_back("waiting   " + status.waiting);
}

void AddRanks(const ClusterStatus& status, std::vector<std::string>* lines) {
  if (status.ranks.empty()) return;
  lines->emplace_back();
  lines->push_back(fmt::format("{:<6} {:<5} {:<16} {:>10} {:>6} {:>11}  {}", "group", "rank",
                               "host", "step", "layer", "collective", "doing"));
  for (const RankStatus& rank : status.ranks) {
    lines->push_back(fmt::format(
        "{:<6} {:<5} {:<16} {:>10} {:>6} {:>11}  {}", rank.group, rank.rank, rank.host, rank.step,
        rank.layer ? fmt::format("{}", *rank.layer) : "-", rank.step_collectives, rank.doing));
  }
}

}  // namespace

Rates RatesOf(const ClusterReading& before, const ClusterReading& now) {
  const double seconds = static_cast<double>(now.at_us - before.at_us) / 1e6;
  return {.generated_per_s = RateOf(before.generated_tokens, now.generated_tokens, seconds),
          .prompt_per_s = RateOf(before.prompt_tokens, now.prompt_tokens, seconds),
          .steps_per_s = RateOf(StepsOf(before), StepsOf(now), seconds)};
}

void LossList::See(const std::string& loss, const std::string& clock) {
  if (loss.empty() || (!losses_.empty() && losses_.front().text == loss)) return;
  losses_.push_front({clock, loss});
  if (losses_.size() > kLossesMax) losses_.pop_back();
}

std::vector<std::string> StatusLines(const ClusterReading& now, const ClusterReading* before,
                                     const LossList& losses, size_t width, size_t height) {
  std::vector<std::string> lines;
  if (now.status) {
    AddCluster(now, before, &lines);
    AddRanks(*now.status, &lines);
  } else {
    lines.push_back("no answer: " + now.error);
  }
  if (!losses.losses().empty()) {
    lines.emplace_back();
    lines.emplace_back("losses");
    for (const LossList::Loss& loss : losses.losses()) {
      lines.push_back(fmt::format("  {}  {}", loss.clock, loss.text));
    }
  }
  if (lines.size() > height) {
    const size_t left_out = lines.size() - height + 1;
    lines.resize(height > 0 ? height - 1 : 0);
    if (height > 0) lines.push_back(fmt::format("... {} more lines", left_out));
  }
  for (std::string& line : lines) line = Fit(line, width);
  return lines;
}

}  // namespace fathom::client
