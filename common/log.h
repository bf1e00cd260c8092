// common/log.h: the process log: one JSON object a line on stderr (ts, level, role, msg), or plain
// text on a terminal. Asynchronous, bounded, drops the oldest under pressure (common/output.h
// counts what was dropped). Never logs prompts or outputs. Thread: Init once from main; the rest
// from any thread. Before Init, lines go to stderr as plain text.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

namespace fathom {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

// level: "debug", "info", "warn", "error".
void LogInit(const std::string& role, const std::string& level);
void LogFlush();
void LogLine(LogLevel level, const std::string& text);
bool LogEnabled(LogLevel level);

template <class... Args>
void LogDebug(fmt::format_string<Args...> text, Args&&... args) {
  if (LogEnabled(LogLevel::kDebug))
    LogLine(LogLevel::kDebug, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void LogInfo(fmt::format_string<Args...> text, Args&&... args) {
  LogLine(LogLevel::kInfo, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void LogWarn(fmt::format_string<Args...> text, Args&&... args) {
  LogLine(LogLevel::kWarn, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void LogError(fmt::format_string<Args...> text, Args&&... args) {
  LogLine(LogLevel::kError, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace fathom
