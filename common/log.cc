#include "common/log.h"

#include <spdlog/async.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

#include "common/output.h"

namespace fathom {
namespace {

constexpr size_t kQueueLines = 8192;

// Set once by LogInit before other threads start, then read-only.
std::shared_ptr<spdlog::logger> g_logger;
bool g_json = false;
spdlog::level::level_enum g_level = spdlog::level::info;  // Of LogInit.

// The lines that one place in the code may still write.
struct Allowance {
  double lines = kLogBurst;
  std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
  uint64_t left_out = 0;
};
std::mutex g_allowances_mutex;
// By the place: the pointer to a file's name is one of a place, since it is only compared.
std::map<std::pair<const void*, uint32_t>, Allowance> g_allowances;

// Setting the level is one atomic store, which a signal handler may do.
void OnLevelSignal(int signal) {
  if (g_logger) g_logger->set_level(signal == SIGUSR1 ? spdlog::level::debug : g_level);
}

spdlog::level::level_enum SpdLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

std::string JsonEscaped(const std::string& text) {
  std::string out;
  out.reserve(text.size() + 8);
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out;
}

// A sink that writes the log's lines as diagnostics. The base has a mutex, because in general
// several threads may call a sink; here only the log's own thread does.
class DiagnosticSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  // `pool` calls this sink, so it outlives all calls.
  explicit DiagnosticSink(spdlog::details::thread_pool* pool) : pool_(pool) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    WriteDiagnostic(std::string_view(line.data(), line.size()));
    const size_t overrun = pool_->overrun_counter();
    CountDroppedDiagnostics(overrun - overrun_);
    overrun_ = overrun;
  }
  void flush_() override {}

  spdlog::details::thread_pool* const pool_;
  size_t overrun_ = 0;  // Lines that the queue has dropped so far.
};

}  // namespace

bool log_internal::MayLog(const std::source_location& where, std::string* note) {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(g_allowances_mutex);
  Allowance& allowance = g_allowances[{where.file_name(), where.line()}];
  const double seconds = std::chrono::duration<double>(now - allowance.since).count();
  allowance.lines = std::min(kLogBurst, allowance.lines + seconds * kLogPerSecond);
  allowance.since = now;
  if (allowance.lines < 1) {
    ++allowance.left_out;
    return false;
  }
  allowance.lines -= 1;
  if (allowance.left_out > 0) {
    *note = fmt::format("({} lines of this kind were left out) ", allowance.left_out);
    allowance.left_out = 0;
  }
  return true;
}

void LogInit(const std::string& role, const std::string& level, const std::string& format) {
  g_json = format == "json" || (format == "auto" && isatty(STDERR_FILENO) == 0);
  spdlog::init_thread_pool(kQueueLines, 1);
  auto sink = std::make_shared<DiagnosticSink>(spdlog::thread_pool().get());
  g_logger = std::make_shared<spdlog::async_logger>(role, sink, spdlog::thread_pool(),
                                                    spdlog::async_overflow_policy::overrun_oldest);
  g_logger->set_pattern(
      g_json ? R"({"ts":"%Y-%m-%dT%H:%M:%S.%f%z","level":"%l","role":"%n","pid":%P,%v})"
             : "%H:%M:%S.%e %n %l: %v");
  g_level = spdlog::level::from_str(level);
  g_logger->set_level(g_level);
  for (const int signal : {SIGUSR1, SIGUSR2}) std::signal(signal, OnLevelSignal);
  g_logger->flush_on(spdlog::level::info);
}

void LogFlush() {
  if (!g_logger) return;
  for (const int signal : {SIGUSR1, SIGUSR2}) std::signal(signal, SIG_IGN);
  g_logger->flush();
  g_logger.reset();
  spdlog::shutdown();
}

bool LogEnabled(LogLevel level) {
  return g_logger ? g_logger->should_log(SpdLevel(level)) : level != LogLevel::kDebug;
}

void LogLine(LogLevel level, const std::string& text, std::string_view request_id) {
  if (!g_logger) {
    Diagnose("{}", text);
    return;
  }
  std::string line;
  if (g_json) {
    if (!request_id.empty()) {
      line = fmt::format("\"request_id\":\"{}\",", JsonEscaped(std::string(request_id)));
    }
    line += fmt::format("\"msg\":\"{}\"", JsonEscaped(text));
  } else {
    line = request_id.empty() ? text : fmt::format("request {}: {}", request_id, text);
  }
  g_logger->log(SpdLevel(level), line);
}

}  // namespace fathom
