#include "common/check.h"

#include <atomic>
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
namespace {

std::atomic<void (*)(const void*)> g_hook = nullptr;
std::atomic<const void*> g_hook_context = nullptr;

}  // namespace

void SetCheckFailedHook(void (*hook)(const void*), const void* context) {
  g_hook.store(nullptr);
  g_hook_context.store(context);
  g_hook.store(hook);
}

void CheckFailed(const char* file, int line, const char* expression, const std::string& message) {
  Diagnose("{}:{}: check failed: {}{}{}", file, line, expression, message.empty() ? "" : ": ",
           message);
  if (const auto hook = g_hook.exchange(nullptr)) hook(g_hook_context.load());
  std::abort();
}

}  // namespace fathom
