#include "common/check.h"

#include <cstdlib>

#include "common/output.h"

#ifdef FATHOM_NO_USER_POISONING
// Abseil's headers mark free slots of a table for ASan. The functions of the system's library,
// which is not built for ASan, use such slots without removing the mark, and ASan would report
// them. NOLINTNEXTLINE: ASan's name.
extern "C" __attribute__((used, visibility("default"))) const char* __asan_default_options() {
  return "allow_user_poisoning=0";
}
#endif

namespace fathom {

void CheckFailed(const char* file, int line, const char* expression, const std::string& message) {
  Diagnose("{}:{}: check failed: {}{}{}", file, line, expression, message.empty() ? "" : ": ",
           message);
  std::abort();
}

}  // namespace fathom
