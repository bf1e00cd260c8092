// fathom-replay: replays a recording of a scheduler (fathom-scheduler --record-events) through a
// new core. `fathom replay` starts this program, because the command line must not include a
// process.
#include <fstream>
#include <utility>

#include "common/flags.h"
#include "common/host_limits.h"
#include "common/output.h"
#include "common/process.h"
#include "scheduler/recorder/recording.h"
#include "scheduler/recorder/replay.h"

namespace fathom::scheduler {
namespace {

constexpr int kExitBroken = 1;

struct Settings {
  std::string file;
  int64_t to = -1;
  bool verbose = false;
};

// The parts of an event that are logged; prompts are not.
std::string DetailsOf(const Event& event) {
  struct Visitor {
    std::string operator()(const Routed<Submit>& e) const {
      return fmt::format("router {} attempt {} request {}{}", e.router.value,
                         e.message.attempt.value, e.message.key.request_id,
                         e.message.record ? "" : " (key only)");
    }
    std::string operator()(const Routed<Suspend>& e) const {
      return fmt::format("router {} attempt {} request {}", e.router.value, e.message.attempt.value,
                         e.message.key.request_id);
    }
    std::string operator()(const Routed<Close>& e) const {
      return fmt::format("router {} request {} sequence {} length {}", e.router.value,
                         e.message.key.request_id, e.message.sequence, e.message.length);
    }
    std::string operator()(const RouterLost& e) const {
      return fmt::format("router {}", e.router.value);
    }
    std::string operator()(const GroupUp& e) const {
      return fmt::format("group {} term {} epoch {} blocks {} slots {}", e.group.value,
                         e.term.value, e.epoch.value, e.limits.blocks, e.limits.slots);
    }
    std::string operator()(const GroupLost& e) const {
      return fmt::format("group {} epoch {}", e.group.value, e.epoch.value);
    }
    std::string operator()(const StepDone& e) const {
      return fmt::format("group {} epoch {} step {} rows {}", e.group.value, e.result.epoch.value,
                         e.result.step.value, e.result.rows.size());
    }
    std::string operator()(const TenantsChanged& e) const {
      return fmt::format("tenants {}", e.table.tenants.size());
    }
    std::string operator()(const Tick&) const { return {}; }
    std::string operator()(const GroupDrain& e) const {
      return fmt::format("group {} epoch {}", e.group.value, e.epoch.value);
    }
  };
  return std::visit(Visitor{}, event);
}

int Report(const RecordingReader& reader, const Replay& replay) {
  PrintAnswer("events   {}", replay.events());
  for (size_t kind = 0; kind < replay.by_kind().size(); ++kind) {
    PrintAnswer("{} {} {}", kind == 0 ? ":" : ",", EventName(kind), replay.by_kind()[kind]);
  }
  PrintAnswer("\nactions  {}\nhash     {:016x}\n", replay.actions().Text(), replay.hash());
  if (reader.cut_bytes() > 0) {
    PrintAnswer("cut off  {} bytes after the last whole event, at offset {}\n", reader.cut_bytes(),
                reader.offset());
  }
  return kExitOk;
}

int Fail(const Settings& settings, const absl::Status& status) {
  Diagnose("fathom replay: {}: {}", settings.file, Message(status));
  return kExitUsage;
}

int ReplayFile(const Settings& settings) {
  std::ifstream file(settings.file, std::ios::binary);
  if (!file) return Fail(settings, NotFound("cannot be read; is the name right?"));
  RecordingReader reader(&file);
  const auto header = reader.Header();
  if (!header.ok()) return Fail(settings, header.status());
  PrintAnswer("build    {}, policy {}\n", header->build, header->options.policy);
  Replay replay(header->options);
  while (settings.to < 0 || replay.events() < settings.to) {
    auto next = reader.Next();
    if (!next.ok()) {
      Report(reader, replay);
      return Fail(settings, next.status());
    }
    if (!*next) break;
    auto& [time_us, event] = **next;
    const int64_t index = replay.events();
    const char* const name = EventName(event.index());
    if (settings.verbose) {
      // Printed before the event is replayed, so that an event that aborts the core is visible.
      PrintAnswer("{} {} us {} {}", index, time_us, name, DetailsOf(event));
      FlushAnswer();
    }
    ActionCounts actions;
    const absl::Status status = replay.Step(std::move(event), time_us, &actions);
    if (settings.verbose) PrintAnswer(" -> {}\n", actions.Text());
    if (!status.ok()) {
      Report(reader, replay);
      FlushAnswer();
      Diagnose("fathom replay: event {} at {} us, {}: {}", index, time_us, name, Message(status));
      return kExitBroken;
    }
  }
  return Report(reader, replay);
}

int Main(int argc, char** argv) {
  PrepareOutput();
  InstallLastWords("fathom-replay");
  Settings settings;
  Flags flags("fathom replay",
              "Gives a recording (--record-events) to a scheduler core and checks what must hold "
              "after each event.");
  flags.AddPositional("FILE", &settings.file, true, "The recording");
  flags.Add("--to", &settings.to, -1, INT64_MAX, "Only so many events; -1: all");
  flags.Add("--verbose", &settings.verbose, "A line for each event: index, time, what, actions");
  if (const auto code = flags.Parse(argc, argv)) return EndAnswer("fathom replay", *code);
  return EndAnswer("fathom replay", ReplayFile(settings));
}

}  // namespace
}  // namespace fathom::scheduler

int main(int argc, char** argv) { return fathom::scheduler::Main(argc, argv); }
