#include "common/log.h"

#include <spdlog/async.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <string_view>

#include "common/output.h"

namespace fathom {
namespace {

constexpr size_t kQueueLines = 8192;

// Set once by LogInit before other threads start, then read-only.
std::shared_ptr<spdlog::logger> g_logger;
bool g_json = false;

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

void LogInit(const std::string& role, const std::string& level) {
  g_json = isatty(STDERR_FILENO) == 0;
  spdlog::init_thread_pool(kQueueLines, 1);
  auto sink = std::make_shared<DiagnosticSink>(spdlog::thread_pool().get());
  g_logger = std::make_shared<spdlog::async_logger>(role, sink, spdlog::thread_pool(),
                                                    spdlog::async_overflow_policy::overrun_oldest);
  g_logger->set_pattern(
      g_json ? R"({"ts":"%Y-%m-%dT%H:%M:%S.%f%z","level":"%l","role":"%n","pid":%P,"msg":"%v"})"
             : "%H:%M:%S.%e %n %l: %v");
  g_logger->set_level(spdlog::level::from_str(level));
  g_logger->flush_on(spdlog::level::info);
}

void LogFlush() {
  if (!g_logger) return;
  g_logger->flush();
  g_logger.reset();
  spdlog::shutdown();
}

bool LogEnabled(LogLevel level) {
  return g_logger ? g_logger->should_log(SpdLevel(level)) : level != LogLevel::kDebug;
}

void LogLine(LogLevel level, const std::string& text) {
  if (!g_logger) {
    Diagnose("{}", text);
    return;
  }
  g_logger->log(SpdLevel(level), g_json ? JsonEscaped(text) : text);
}

}  // namespace fathom
