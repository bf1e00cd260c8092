#include "cli/status/watch.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "cli/status/metrics_text.h"
#include "cli/status/status_view.h"
#include "common/clock.h"
#include "common/exit_codes.h"
#include "common/output.h"
#include "http/client.h"

namespace fathom::client {
namespace {

constexpr int64_t kWatchDeadlineMs = 2000;
constexpr int kMetricsTimeoutMs = 1000;
constexpr size_t kMetricsBytesMax = size_t{8} << 20;
constexpr size_t kPipeWidth = 1000, kPipeHeight = 10'000;

// SIGINT and SIGTERM, which are blocked.
class StopSignals {
 public:
  StopSignals() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  ~StopSignals() {
    if (fd_ >= 0) close(fd_);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Whether a signal came within the time.
  bool Came(int64_t wait_ms) const {
    pollfd one{fd_, POLLIN, 0};
    return poll(&one, 1, static_cast<int>(std::max<int64_t>(wait_ms, 0))) > 0;
  }

 private:
  int fd_ = -1;
};

// The alternate screen without a cursor, for as long as the object lives.
class Screen {
 public:
  explicit Screen(bool on) : on_(on) {
    if (on_) WriteAnswer("\x1b[?1049h\x1b[?25l");
  }
  ~Screen() {
    if (!on_) return;
    WriteAnswer("\x1b[?25h\x1b[?1049l");
    FlushAnswer();
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  size_t width() const { return SizeOr(&winsize::ws_col, 80, kPipeWidth); }
  size_t height() const { return SizeOr(&winsize::ws_row, 24, kPipeHeight); }

  void Draw(const std::vector<std::string>& lines) const {
    std::string text = on_ ? "\x1b[H" : "";
    for (size_t i = 0; i < lines.size(); ++i) {
      text += lines[i];
      if (on_) text += "\x1b[K";
      if (!on_ || i + 1 < lines.size()) text += "\n";
    }
    text += on_ ? "\x1b[J" : "\n";
    WriteAnswer(text);
  }

 private:
  size_t SizeOr(unsigned short winsize::*part, size_t fallback, size_t in_pipe) const {
    winsize size{};
    if (!on_) return in_pipe;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.*part == 0) return fallback;
    return size.*part;
  }

  const bool on_;
};

std::string TimeOfDay() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  return fmt::format("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec);
}

ClusterReading Read(Client& client, const WatchOptions& options, const Clock& clock) {
  ClusterReading reading;
  auto status = client.GetStatus(kWatchDeadlineMs);
  if (status.ok()) {
    reading.status = *std::move(status);
  } else {
    reading.error = std::string(Message(status.status()));
  }
  const auto page =
      http::GetAt(options.scheduler_metrics, "/metrics",
                  {.timeout_ms = kMetricsTimeoutMs, .body_bytes_max = kMetricsBytesMax});
  reading.at_us = clock.Now();
  if (!page.ok() || page->status != 200) {
    reading.metrics_error =
        page.ok() ? fmt::format("{} has no /metrics", options.scheduler_metrics)
                  : fmt::format("{}; give --scheduler-metrics HOST:PORT", Message(page.status()));
    return reading;
  }
  reading.prompt_tokens = MetricOf(page->body, "fathom_scheduler_prompt_tokens_total");
  reading.generated_tokens = MetricOf(page->body, "fathom_scheduler_generation_tokens_total");
  reading.waiting_by_reason =
      MetricByLabel(page->body, "fathom_scheduler_requests_waiting_by_reason", "reason");
  return reading;
}

nlohmann::ordered_json OrNull(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

std::string JsonLine(const ClusterReading& now, const ClusterReading* before) {
  nlohmann::ordered_json json =
      now.status ? StatusJson(*now.status)
                 : nlohmann::ordered_json{{"ready", false}, {"reason", now.error}};
  const Rates rates = before != nullptr ? RatesOf(*before, now) : Rates{};
  json["generated_tokens_per_s"] = OrNull(rates.generated_per_s);
  json["prompt_tokens_per_s"] = OrNull(rates.prompt_per_s);
  json["steps_per_s"] = OrNull(rates.steps_per_s);
  json["requests_waiting_by_reason"] = now.waiting_by_reason;
  if (!now.metrics_error.empty()) json["metrics_error"] = now.metrics_error;
  return json.dump() + "\n";
}

}  // namespace

int Watch(Client& client, const WatchOptions& options) {
  const StopSignals signals;
  const RealClock clock;
  const Screen screen(!options.json && isatty(STDOUT_FILENO) != 0);
  LossList losses;
  std::optional<ClusterReading> before;
  for (int32_t count = 1;; ++count) {
    const TimeUs begin_us = clock.Now();
    ClusterReading now = Read(client, options, clock);
    // A loss from before the first reading has no known time.
    if (now.status) losses.See(now.status->last_loss, before ? TimeOfDay() : "earlier ");
    const ClusterReading* const last = before ? &*before : nullptr;
    if (options.json) {
      WriteAnswer(JsonLine(now, last));
    } else {
      screen.Draw(StatusLines(now, last, losses, screen.width(), screen.height()));
    }
    const bool ready = now.status && now.status->ready;
    if (!FlushAnswer() || count == options.count) return ready ? kExitOk : kExitUnavailable;
    before = std::move(now);
    const int64_t spent_ms = (clock.Now() - begin_us) / 1000;
    if (signals.Came(options.interval_ms - spent_ms)) return kExitOk;
  }
}

}  // namespace fathom::client
