#include "scheduler/recorder/event_ring.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>
#include <variant>

#include "common/check.h"

namespace fathom::scheduler {
namespace {

// Writes one line about an event into a buffer, which may be too short for it.
struct LineWriter {
  char* to;
  size_t room;

  template <class... Args>
  size_t Put(fmt::format_string<Args...> format, Args&&... args) const {
    const auto written = fmt::format_to_n(to, room, format, std::forward<Args>(args)...);
    return std::min<size_t>(written.size, room);
  }

  // Of the text of a peer: printable, and no longer than useful.
  static std::string_view Short(std::string_view text) { return text.substr(0, 64); }

  size_t operator()(const Routed<Submit>& event) const {
    const Submit& submit = event.message;
    if (!submit.record) {
      return Put("router {} submits the key {}, attempt {}", event.router.value,
                 Short(submit.key.request_id), submit.attempt.value);
    }
    const Record& record = *submit.record;
    return Put("router {} submits {}, attempt {}: prompt {}, max_tokens {}, {} generated{}",
               event.router.value, Short(submit.key.request_id), submit.attempt.value,
               record.prompt_ids.size(), record.request.stop.max_tokens,
               record.sequences.empty() ? 0 : record.sequences.front().ids.size(),
               submit.replay ? ", a replay" : "");
  }
  size_t operator()(const Routed<Suspend>& event) const {
    return Put("router {} suspends {}, attempt {}", event.router.value,
               Short(event.message.key.request_id), event.message.attempt.value);
  }
  size_t operator()(const Routed<Close>& event) const {
    return Put("router {} closes {}, sequence {} at {}", event.router.value,
               Short(event.message.key.request_id), event.message.sequence, event.message.length);
  }
  size_t operator()(const RouterLost& event) const {
    return Put("router {} is lost", event.router.value);
  }
  size_t operator()(const GroupUp& event) const {
    return Put("group {} is up: term {}, epoch {}, {} blocks, {} slots, {} step tokens",
               event.group.value, event.term.value, event.epoch.value, event.limits.blocks,
               event.limits.slots, event.limits.step_tokens);
  }
  size_t operator()(const GroupLost& event) const {
    return Put("group {} is lost: epoch {}", event.group.value, event.epoch.value);
  }
  size_t operator()(const StepDone& event) const {
    const StepResult& result = event.result;
    const auto faults = std::ranges::count_if(
        result.rows, [](const ResultRow& row) { return row.fault != RowFault::kNone; });
    return Put("group {} did step {}: epoch {}, {} rows, {} faults", event.group.value,
               result.step.value, result.epoch.value, result.rows.size(), faults);
  }
  size_t operator()(const GroupDrain& event) const {
    return Put("group {} drains: epoch {}", event.group.value, event.epoch.value);
  }
  size_t operator()(const TenantsChanged& event) const {
    return Put("limits of {} tenants", event.table.tenants.size());
  }
  size_t operator()(const Tick&) const { return Put("tick"); }
};

void WriteAll(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t bytes = write(descriptor, text.data(), text.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) return;
    text.remove_prefix(static_cast<size_t>(bytes));
  }
}

}  // namespace

void EventRing::Note(const Event& event, TimeUs now) {
  const uint64_t number = noted_.load(std::memory_order_relaxed);
  Entry& entry = entries_[number % kEvents];
  // One byte stays for the end of the line.
  const LineWriter head{entry.line.data(), kLineBytes - 1};
  const size_t begun = head.Put("  event {} at {} us: ", number, now);
  const LineWriter rest{entry.line.data() + begun, kLineBytes - 1 - begun};
  const size_t bytes = begun + std::visit(rest, event);
  entry.line[bytes] = '\n';
  entry.bytes = bytes + 1;
  noted_.store(number + 1, std::memory_order_release);
}

void EventRing::Dump(int descriptor) const {
  const uint64_t end = noted_.load(std::memory_order_acquire);
  // The oldest entry of a full ring may be the one that is being written.
  const uint64_t begin = end < kEvents ? 0 : end - kEvents + 1;
  WriteAll(descriptor, "the last events of the scheduler core:\n");
  for (uint64_t number = begin; number < end; ++number) {
    const Entry& entry = entries_[number % kEvents];
    WriteAll(descriptor, {entry.line.data(), std::min(entry.bytes, kLineBytes)});
  }
}

void EventRing::DumpOnFailedCheck() const {
  SetCheckFailedHook(
      [](const void* ring) { static_cast<const EventRing*>(ring)->Dump(STDERR_FILENO); }, this);
}

}  // namespace fathom::scheduler
