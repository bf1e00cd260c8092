// common/check.h: FATHOM_CHECK is for our own bugs, never for errors that a user, a file or a peer
// can cause. It is on in every build. A failure prints file, line, expression and message to stderr
// and aborts the process; this is acceptable because restarts are cheap and sessions survive the
// end of any process.
#pragma once

#include <fmt/format.h>

#include <string>

namespace fathom {
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression,
                              const std::string& message);

// Calls `hook(context)` once when a check of this process fails, after its message and before the
// process ends; nullptr: none. The hook must not allocate, lock or check anything.
void SetCheckFailedHook(void (*hook)(const void*), const void* context);
}  // namespace fathom

// FATHOM_CHECK(cond) or FATHOM_CHECK(cond, "format {}", value).
#define FATHOM_CHECK(condition, ...)                           \
  (static_cast<bool>(condition)                                \
       ? static_cast<void>(0)                                  \
       : ::fathom::CheckFailed(__FILE__, __LINE__, #condition, \
                               ::fathom::check_internal::Text(__VA_ARGS__)))

namespace fathom::check_internal {
inline std::string Text() { return {}; }
template <class... Args>
std::string Text(fmt::format_string<Args...> text, Args&&... args) {
  return fmt::format(text, std::forward<Args>(args)...);
}
}  // namespace fathom::check_internal
