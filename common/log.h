// common/log.h: the log of the process: one line for each event on stderr, as a JSON object (ts,
// level, role, pid, request_id if the event is of a request, msg) or as text. The log is
// asynchronous and bounded; under load it drops the oldest lines, and common/output.h counts them.
// Each place in the code writes at most kLogBurst lines at once and kLogPerSecond after that; its
// next line says how many were left out. Prompts and outputs are logged only by a flag that asks
// for them. Thread: main calls LogInit once; any thread may call the other functions. Before
// LogInit, lines go to stderr as plain text.
//
// SIGUSR1 sets the level to debug while the process runs, SIGUSR2 sets it back to that of LogInit.
#pragma once

#include <fmt/format.h>

#include <source_location>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace fathom {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

inline constexpr double kLogPerSecond = 10;
inline constexpr double kLogBurst = 50;

// `level`: "debug", "info", "warn", "error". `format`: "json", "text", or "auto": text on a
// terminal.
void LogInit(const std::string& role, const std::string& level, const std::string& format = "auto");
void LogFlush();
bool LogEnabled(LogLevel level);
// Writes a line, whatever its place in the code has written. `request_id` empty: of no request.
void LogLine(LogLevel level, const std::string& text, std::string_view request_id = {});

namespace log_internal {

// A format string and the place in the code that has it.
template <class... Args>
struct Text {
  // NOLINTNEXTLINE(google-explicit-constructor): a string literal is meant.
  template <class String>
  consteval Text(const String& string, std::source_location place = std::source_location::current())
      : text(string), where(place) {}
  fmt::format_string<Args...> text;
  std::source_location where;
};
template <class... Args>
using TextOf = Text<std::type_identity_t<Args>...>;

// Whether the place may write a line now; then `*note` is what to write before it: empty, or how
// many lines were left out.
bool MayLog(const std::source_location& where, std::string* note);

template <class... Args>
void Write(LogLevel level, std::string_view request_id,
           const Text<std::type_identity_t<Args>...>& text, Args&&... args) {
  std::string note;
  if (!LogEnabled(level) || !MayLog(text.where, &note)) return;
  LogLine(level, note + fmt::format(text.text, std::forward<Args>(args)...), request_id);
}

}  // namespace log_internal

template <class... Args>
void LogDebug(log_internal::TextOf<Args...> text, Args&&... args) {
  log_internal::Write<Args...>(LogLevel::kDebug, {}, text, std::forward<Args>(args)...);
}
template <class... Args>
void LogInfo(log_internal::TextOf<Args...> text, Args&&... args) {
  log_internal::Write<Args...>(LogLevel::kInfo, {}, text, std::forward<Args>(args)...);
}
template <class... Args>
void LogWarn(log_internal::TextOf<Args...> text, Args&&... args) {
  log_internal::Write<Args...>(LogLevel::kWarn, {}, text, std::forward<Args>(args)...);
}
template <class... Args>
void LogError(log_internal::TextOf<Args...> text, Args&&... args) {
  log_internal::Write<Args...>(LogLevel::kError, {}, text, std::forward<Args>(args)...);
}
// An event of one request.
template <class... Args>
void LogRequest(LogLevel level, std::string_view request_id, log_internal::TextOf<Args...> text,
                Args&&... args) {
  log_internal::Write<Args...>(level, request_id, text, std::forward<Args>(args)...);
}

}  // namespace fathom
