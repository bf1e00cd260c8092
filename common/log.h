// common/log.h: the log of the process: one JSON object per line on stderr (ts, level, role, pid,
// msg), or plain text on a terminal. The log is asynchronous and bounded; under load it drops the
// oldest lines, and common/output.h counts them. Prompts and outputs are never logged. Thread: main
// calls LogInit once; any thread may call the other functions. Before LogInit, lines go to stderr
// as plain text.
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
