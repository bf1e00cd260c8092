#include "router/request_lines.h"

#include <fmt/format.h>

#include "common/log.h"

namespace fathom::router {
namespace {

double Seconds(int64_t us) { return static_cast<double>(us) * 1e-6; }

}  // namespace

std::string RequestLine(const RequestReport& report) {
  std::string line = fmt::format(
      "ended {} after {:.3f} s: {} prompt tokens, {} of them cached, {} "
      "generated",
      report.outcome, Seconds(report.whole_us), report.usage.prompt_tokens,
      report.usage.cached_tokens, report.usage.completion_tokens);
  if (report.first_token_us >= 0) {
    line += fmt::format("; first token after {:.3f} s", Seconds(report.first_token_us));
  }
  if (report.timings) {
    const RequestTimings& of = *report.timings;
    const std::pair<const char*, int64_t> parts[] = {
        {"earlier", of.earlier_us},         {"queue", of.queue_us},
        {"prefill", of.prefill_us},         {"decode", of.decode_us},
        {"replay", of.replay_us},           {"suspended", of.suspended_us},
        {"transport", report.TransportUs()}};
    const char* before = "; ";
    for (const auto& [name, us] : parts) {
      if (us == 0) continue;
      line += fmt::format("{}{} {:.3f} s", before, name, Seconds(us));
      before = ", ";
    }
    if (of.preemptions > 0) line += fmt::format("; {} preemptions", of.preemptions);
  }
  if (!report.message.empty()) line += fmt::format("; {}: {}", report.reason, report.message);
  return line;
}

void RequestLines::Ended(const RequestReport& report) {
  // Asked for by a flag, so each request has its line, whatever their rate is.
  if (LogEnabled(LogLevel::kInfo)) {
    LogLine(LogLevel::kInfo, RequestLine(report), report.key.request_id);
  }
  if (next_ != nullptr) next_->Ended(report);
}

}  // namespace fathom::router
