// cli/serve/supervisor.h: keeps a set of processes alive. It starts them, reads their JSON lines
// (where they listen, the progress of their start), restarts those that die, and stops them in
// order. A child that ends with 64 (bad usage), 66 (bad model) or, before MarkReady, 71 (limits of
// the system) is not restarted: the supervisor ends with that code. A restart that fails (the
// program file is being replaced, or the system has no process or memory) counts as a death and is
// tried again. A restart is delayed only if the child died during its start or soon after it; a
// child that dies later is restarted at once. The stderr of a child is appended to
// RUN_DIR/<name>.log, which is bounded (common/rotating_file.h). Thread: one owner, as in
// ProcessSet.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/serve/child_spec.h"
#include "cli/serve/process_set.h"
#include "cli/serve/timeline.h"
#include "common/clock.h"
#include "common/rotating_file.h"
#include "common/status.h"

namespace fathom::client {

struct ChildState {
  pid_t pid = 0;   // 0: it is down.
  int deaths = 0;  // Consecutive deaths without a healthy life between them.
  TimeUs started_at_us = 0;
  TimeUs restart_at_us = 0;               // Valid while it is down.
  std::optional<TimeUs> listening_at_us;  // In this life.
  std::optional<TimeUs> up_at_us;         // In this life: the end of its start.
  std::map<std::string, int64_t> ports;   // The ports of its listening line.
  std::vector<PhaseMark> phases;          // In this life.
  std::string last_error;                 // Its last line on stderr, in this life.
  int last_code = 0;
};

struct SupervisorOptions {
  std::string run_dir;                        // Must exist.
  bool verbose = false;                       // The children's stderr is also copied to ours.
  int64_t log_bytes_max = int64_t{16} << 20;  // The limit of one file; a child has at most two.
  int64_t backoff_first_us = 100'000;
  int64_t backoff_max_us = 5'000'000;
  int64_t healthy_us = 1'000'000;   // After this time, earlier deaths are forgotten.
  int deaths_before_ready_max = 3;  // Of one child before MarkReady; then the start has failed.
};

// The delay before the next start after `deaths` consecutive deaths; 0 after the first one.
// REQUIRES: deaths >= 1.
int64_t RestartDelayUs(const SupervisorOptions& options, int deaths);

class Supervisor {
 public:
  Supervisor(SupervisorOptions options, const Clock* clock);

  // Starts a child. Returns its number, which counts from 0. NOT_FOUND if there is no such program;
  // after another failure Poll tries again.
  absl::StatusOr<int> Add(ChildSpec spec);

  // The end of the supervision: the exit code and one line for people.
  struct Verdict {
    int code = 0;
    std::string message;
  };
  // Handles the events of timeout_ms. Returns a verdict if a child ended for good or a stop signal
  // came (code 0).
  std::optional<Verdict> Poll(int timeout_ms);

  // Kills a child, which then starts again. Does nothing if it is down. `why` is a note for people.
  void End(int index, const std::string& why);

  // From now on, deaths do not fail the start.
  void MarkReady() { ready_ = true; }

  // Stops all children, stage by stage: SIGTERM, then SIGKILL after at most `grace_us`. A stop
  // signal during this time kills the rest at once. Returns false if a child had to be killed.
  bool Stop(int64_t grace_us);

  const ChildState& child(int index) const { return children_[index].state; }
  int children() const { return static_cast<int>(children_.size()); }
  // Lines about the cluster ("worker-0 died (137); starting it again") since the last call.
  std::vector<std::string> TakeNotes();

 private:
  struct Child {
    ChildSpec spec;
    ChildState state;
    std::unique_ptr<RotatingFile> log;
  };

  absl::Status Start(int index);
  std::optional<Verdict> Handle(const ProcessEvent& event);
  std::optional<Verdict> OnExit(const ChildExit& exit);
  std::optional<Verdict> OnStartFailed(int index, const absl::Status& status);
  // The child is down; sets when it starts again. `what` says how it ended.
  std::optional<Verdict> OnDown(int index, const std::string& what, int code);
  void OnLine(const ChildLine& line);
  bool StopStage(int stage, int64_t grace_us);
  int WaitMs(int timeout_ms) const;

  const SupervisorOptions options_;
  const Clock* const clock_;
  ProcessSet processes_;
  std::vector<Child> children_;
  std::vector<std::string> notes_;
  bool ready_ = false;
  bool stopping_ = false;
  bool stop_twice_ = false;
};

}  // namespace fathom::client
