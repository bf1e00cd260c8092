#include "common/check.h"

#include <cstdlib>

#include "common/output.h"

namespace fathom {

void CheckFailed(const char* file, int line, const char* expression, const std::string& message) {
  Diagnose("{}:{}: check failed: {}{}{}", file, line, expression, message.empty() ? "" : ": ",
           message);
  std::abort();
}

}  // namespace fathom
